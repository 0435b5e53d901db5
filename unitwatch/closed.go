package unitwatch

import (
	"errors"
	"io/fs"
)

// A cgroup that was delegated has an owner, who may take away the right to list it.
// That is no error, or any user could keep a daemon from its first whole look: what lies
// in it is not known, and belongs to the nearest ancestor's group but where the kernel
// has mapped it.

// denied reports that a directory is there, and that it may not be looked into.
func denied(err error) bool { return errors.Is(err, fs.ErrPermission) }

// shut forgets what lies in a directory that may not be looked into.
func (h *hierarchy) shut(d *dir) {
	for _, c := range d.children {
		h.drop(c)
	}
	d.children = nil
	if !d.closed {
		d.closed, h.changed = true, true
	}
}

// reopen says that a directory was listed, which may have been closed before: nobody
// announced what is in it.
func (h *hierarchy) reopen(d *dir) {
	if d.closed {
		d.closed, h.changed = false, true
		h.opened = append(h.opened, d)
	}
}
