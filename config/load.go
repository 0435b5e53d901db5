package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Where an installed configuration lives, lowest precedence first.
var installedFolders = []string{"/usr/lib/slicelb", "/run/slicelb", "/etc/slicelb"}

// Source says which files make a configuration.
type Source struct {
	// Enforce makes the owner and mode of files and their folders an error;
	// else it is a warning. A file that was named alone may then be a link only
	// to another in its folder. Installed sets it.
	Enforce bool

	// Reader names who reads the files, for hints; "" is this process's user.
	Reader string

	root    string   // in front of every path, "" or like "/tmp/x"
	main    string   // the main file
	drops   []string // folders of drop-ins, lowest precedence first
	folders []string // what links may lead to; nil: the main file is read as it is
	alone   bool     // the main file must exist

	settled func() // a test's, between reading and looking again
}

// Installed is /etc/slicelb/slicelb.toml with the drop-ins of /usr/lib, /run
// and /etc. A root other than "" or "/" stands in front of all of them; there
// files may belong to the caller instead of root.
func Installed(root string) Source {
	if root = filepath.Clean("/" + root); root == "/" {
		root = ""
	}
	s := Source{Enforce: true, root: root}
	for _, f := range installedFolders {
		s.folders = append(s.folders, root+f)
		s.drops = append(s.drops, root+f+"/conf.d")
	}
	s.main = root + "/etc/slicelb/slicelb.toml"
	return s
}

// FromPath is what a person names: a file alone; a folder like /etc/slicelb; or
// a folder that holds a whole tree, with etc/slicelb in it. Ownership and mode
// are warnings unless the path is part of the installed configuration.
func FromPath(name string) (Source, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return Source{}, err
	}
	info, err := os.Stat(abs)
	if err != nil {
		return Source{}, err
	}
	if !info.IsDir() {
		s := Source{main: abs, alone: true}
		for _, f := range installedFolders {
			if strings.HasPrefix(abs, f+"/") {
				s.Enforce, s.folders = true, installedFolders
			}
		}
		return s, nil
	}
	if abs == "/" || abs == "/etc/slicelb" {
		return Installed(""), nil
	}
	here := Source{main: filepath.Join(abs, "slicelb.toml"), drops: []string{filepath.Join(abs, "conf.d")}, folders: []string{abs}}
	if exists(here.main) || exists(here.drops[0]) {
		return here, nil
	}
	if exists(filepath.Join(abs, "etc/slicelb")) {
		s := Installed(abs)
		s.Enforce = false
		return s, nil
	}
	return Source{}, fmt.Errorf("%s holds neither slicelb.toml nor conf.d", abs)
}

// At is FromPath, or Installed where nothing is named.
func At(name string) (Source, error) {
	if name == "" {
		return Installed(""), nil
	}
	return FromPath(name)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// Load reads, merges and checks the files. The error is an *Error with
// everything that is wrong; nothing is ever applied in part. The warnings stand
// beside either.
func (s Source) Load() (*Config, Warnings, error) {
	if s.Enforce && s.folders == nil {
		s.folders = []string{filepath.Dir(s.main)} // where its links may lead
	}
	const tries = 5
	for try := 1; ; try++ {
		b := newBuilder()
		before := s.read(b)
		if s.settled != nil {
			s.settled()
		}
		if s.unchanged(before) {
			return b.finish()
		}
		if try == tries {
			return nil, nil, &Error{Problems: []Problem{{
				Pos: Position{File: s.main}, Severity: SeverityError,
				Message: "the configuration changes while it is read", Hint: "load it again when it is complete",
			}}}
		}
	}
}

// Parse reads one text, such as Render's, with every check but those of files:
// it may be longer than MaxFileBytes. The error is an *Error.
func Parse(name string, data []byte) (*Config, error) {
	b := newBuilder()
	src := &source{name: name, data: data}
	if len(data) > maxTotalBytes {
		b.fileErrorf(src, "", "longer than %d bytes", maxTotalBytes)
	} else {
		b.read(src)
	}
	c, _, err := b.finish()
	return c, err
}

// fileErrorf complains about a file as a whole.
func (b *builder) fileErrorf(src *source, hint, format string, args ...any) {
	b.unread = true
	b.add(src, Problem{
		Pos: Position{File: src.name}, Severity: SeverityError, Hint: hint, order: src.order,
		Message: fmt.Sprintf(format, args...),
	})
}

// list returns the files in load order: the main file, then the drop-ins by
// name. Of two with one name, the folder of higher precedence has it.
func (s Source) list() ([]string, error) {
	byName := make(map[string]string)
	for _, dir := range s.drops {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if name := e.Name(); strings.HasSuffix(name, ".toml") && name[0] != '.' {
				byName[name] = filepath.Join(dir, name)
			}
		}
	}
	names := make([]string, 0, len(byName))
	for name := range byName {
		names = append(names, name)
	}
	slices.Sort(names)
	files := []string{s.main}
	for _, name := range names {
		files = append(files, byName[name])
	}
	return files, nil
}

// read reads all files into b and returns what they were.
func (s Source) read(b *builder) map[string]stamp {
	seen := make(map[string]stamp)
	files, err := s.list()
	if err != nil {
		name := s.main
		var perr *fs.PathError
		if errors.As(err, &perr) {
			name = perr.Path
		}
		hint := ""
		if errors.Is(err, fs.ErrPermission) {
			hint = s.unreadable(name, name)
		}
		b.fileErrorf(&source{name: name}, hint, "%v", cause(err))
		return seen
	}
	if len(files) > maxFiles {
		b.fileErrorf(&source{name: files[maxFiles], order: maxFiles}, "", "more than %d files", maxFiles)
		files = files[:maxFiles]
	}
	total := 0
	b.main.Path = s.main
	dirs := make(map[string]bool)
	for i, name := range files {
		src := &source{name: name, order: i}
		f, err := s.open(name)
		for _, d := range f.dirs {
			// In a sticky folder others cannot replace the file that was named.
			if sticky := s.alone && d.mode&unix.S_ISVTX != 0; !dirs[d.name] && !sticky {
				dirs[d.name] = true
				s.checkOwner(b, &source{name: d.name, order: i}, d.mode, d.uid)
			}
		}
		seen[name] = f.stamp
		switch {
		case f.masked:
			continue
		case errors.Is(err, fs.ErrNotExist) && name == s.main && !s.alone:
			b.main.Missing = true
			b.warnings = append(b.warnings, Problem{
				Pos: Position{File: name}, Severity: SeverityWarning, order: i, Message: "does not exist",
			})
			continue
		case err != nil:
			b.files = append(b.files, name)
			if errors.Is(err, fs.ErrPermission) {
				f.hint = s.unreadable(name, f.denied)
			}
			b.fileErrorf(src, f.hint, "%v", cause(err))
			continue
		}
		s.checkOwner(b, src, f.mode, f.uid)
		if total += len(f.data); total > maxTotalBytes {
			b.fileErrorf(src, "", "all files together are longer than %d bytes", maxTotalBytes)
			continue
		}
		if src.data = f.data; name == s.main {
			b.main.Blank = len(bytes.TrimSpace(f.data)) == 0
		}
		b.read(src)
	}
	return seen
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

// unchanged looks again: the same files, none written since.
func (s Source) unchanged(before map[string]stamp) bool {
	if s.folders == nil && before[s.main] == (stamp{}) {
		return true // a pipe is read once
	}
	files, err := s.list()
	if err != nil {
		return true // read has complained
	}
	if len(files) > maxFiles {
		files = files[:maxFiles]
	}
	if len(files) != len(before) {
		return false
	}
	for _, name := range files {
		was, ok := before[name]
		if !ok {
			return false
		}
		if now := s.look(name); now != was {
			return false
		}
	}
	return true
}

// checkOwner: only root may change what decides where connections go.
func (s Source) checkOwner(b *builder, src *source, mode fs.FileMode, uid uint32) {
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

// cause is err without the path, which the position says already.
func cause(err error) error {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		return perr.Err
	}
	return err
}
