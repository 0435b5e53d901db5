package config

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
)

// The folder that systemd makes for the daemon, and whom the unit runs it as.
const (
	runFolder  = "/run/slicelb"
	daemonUser = "slicelb"
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
	if uid != 0 && (s.root == "" || int(uid) != os.Geteuid()) && !s.daemonsOwn(src.name, uid) {
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

// daemonsOwn reports whether name is the one folder that may belong to the daemon's
// user. There it can hide what root has put, as it can in the kernel; what is read
// beneath is root's all the same.
func (s Source) daemonsOwn(name string, uid uint32) bool {
	if name != s.root+runFolder {
		return false
	}
	isDaemon := s.isDaemon
	if isDaemon == nil {
		isDaemon = runsDaemon
	}
	return isDaemon(uid)
}

// runsDaemon reports whether uid is this process's, or the unit's.
func runsDaemon(uid uint32) bool {
	if int(uid) == os.Geteuid() {
		return true
	}
	u, err := user.Lookup(daemonUser)
	return err == nil && u.Uid == strconv.FormatUint(uint64(uid), 10)
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
