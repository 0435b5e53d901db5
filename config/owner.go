package config

import (
	"fmt"
	"io/fs"
	"os"
)

// checkOwner: only root may change what decides where connections go.
func (s Source) checkOwner(b *builder, src *fileText, mode fs.FileMode, uid uint32) {
	say := func(hint, format string, args ...any) {
		p := Problem{
			Pos: Position{File: src.name}, Severity: SeverityWarning, Hint: hint, order: src.order,
			Message: fmt.Sprintf(format, args...),
		}
		if s.Enforce {
			p.Severity = SeverityError
			b.add(src, p)
			return
		}
		b.warnings = append(b.warnings, p)
	}
	if uid != 0 && (s.root == "" || int(uid) != os.Geteuid()) {
		say("chown root "+printable(src.name), "belongs to uid %d, not to root", uid)
	}
	if s.Enforce && os.Geteuid() == 0 && mode.Perm()&0o044 == 0 {
		b.warnings = append(b.warnings, Problem{
			Pos: Position{File: src.name}, Severity: SeverityWarning, order: src.order,
			Message: fmt.Sprintf("nobody but root can read it (mode %04o)", mode.Perm()),
			Hint:    "the daemon's own user must be able to",
		})
	}
	if mode.Perm()&0o022 != 0 {
		say("chmod go-w "+printable(src.name), "can be written by others than its owner (mode %04o)", mode.Perm())
	}
}

// unreadable is what to do about a file that may not be read, or where folder is
// not "", about a folder.
func (s Source) unreadable(file, folder string) string {
	who := s.Reader
	if who == "" {
		who = fmt.Sprintf("uid %d", os.Geteuid())
	}
	if folder != "" {
		return fmt.Sprintf("%s must be able to search it: chmod go+rx %s", who, printable(folder))
	}
	return fmt.Sprintf("%s must be able to read it: chmod go+r %s, or chgrp slicelb and chmod g+r", who, printable(file))
}
