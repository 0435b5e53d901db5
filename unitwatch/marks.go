package unitwatch

import "golang.org/x/sys/unix"

// Marks are what systemd leaves at a directory that is a unit's: its invocation id.

// rename reads systemd's mark on d again; false where d's directory is gone.
func (h *hierarchy) rename(d *dir) (there bool) {
	if !d.shaped || h.byID[d.id] != d {
		return true
	}
	fd, err := h.open(d)
	if err != nil {
		return !gone(err)
	}
	defer unix.Close(fd)
	if inv := readInvocation(fd, "."); inv != "" && inv != d.about.invoked() {
		d.marked, d.about = true, &about{invocation: inv}
		h.changed = true
	}
	return true
}

// readMarks reads up to n of the marks that looks have left. It returns whose it
// read, and directories that are gone without a word.
func (h *hierarchy) readMarks(n int) (read, lost []*dir) {
	n = min(n, len(h.unread))
	var parent *dir
	fd := -1
	for _, d := range h.unread[:n] {
		d.unread = false
		if h.byID[d.id] != d || d.marked { // dropped meanwhile, or systemd said so
			continue
		}
		if d.parent != parent { // those of one directory stand together
			if fd >= 0 {
				_ = unix.Close(fd)
			}
			var err error
			if fd, err = h.open(d.parent); err != nil {
				fd = -1
				lost = append(lost, d.parent)
			}
			parent = d.parent
		}
		if fd < 0 {
			continue
		}
		if inv := readInvocation(fd, d.name); inv != "" {
			d.marked, d.about = true, &about{invocation: inv}
			h.renamed = true
		}
		read = append(read, d)
	}
	if fd >= 0 {
		_ = unix.Close(fd)
	}
	if h.unread = h.unread[n:]; len(h.unread) == 0 {
		h.unread = nil
	}
	return read, lost
}
