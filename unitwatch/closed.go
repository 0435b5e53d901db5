package unitwatch

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// A cgroup that was delegated has an owner, who may take away the right to list it, or
// make directories as deep as he likes. That is no error, or any user could keep a daemon
// from its first whole look. Such a directory is closed: what lies in it is not known,
// and belongs to the nearest ancestor's group but where the kernel has mapped it. What
// others than root have no part in is an error, and tried again.

// closes reports that err, of opening d by name below at, is what d's owner wants.
func (h *hierarchy) closes(at int, name string, d *dir, err error) bool {
	if !errors.Is(err, fs.ErrPermission) {
		return false
	}
	var st unix.Stat_t
	if unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		h.delegate(d, delegates(&st))
	}
	return d.delegated || d.foreign()
}

// delegate says whether others than root may make directories in d, and so whose those
// in it may be.
func (h *hierarchy) delegate(d *dir, delegated bool) {
	if d.delegated != delegated {
		d.delegated, h.changed = delegated, true
	}
}

// beyond reports that a directory lies too deep to be looked into, or that its path is
// too long to open it by.
func beyond(d *dir, level int) bool {
	return level > maxDepth || len(d.path) > unix.PathMax // without its first slash, and with a NUL
}

// shut forgets what lies in a directory that is not looked into.
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
