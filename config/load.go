package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

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
// it may be longer than a file. The error is an *Error.
func Parse(name string, data []byte) (*Config, error) {
	b := newBuilder()
	src := &fileText{name: name, data: data}
	if len(data) > maxTotalBytes {
		b.fileErrorf(src, "", "longer than %d bytes", maxTotalBytes)
	} else {
		b.read(src)
	}
	c, _, err := b.finish()
	return c, err
}

// fileErrorf complains about a file as a whole.
func (b *builder) fileErrorf(src *fileText, hint, format string, args ...any) {
	b.unread = true
	b.add(src, Problem{
		Pos: Position{File: src.name}, Severity: SeverityError, Hint: hint, order: src.order,
		Message: fmt.Sprintf(format, args...),
	})
}

// read reads all files into b and returns what they were.
func (s Source) read(b *builder) map[string]stamp {
	seen := make(map[string]stamp)
	files, err := s.list()
	if err != nil {
		s.unlisted(b, err)
		return seen
	}
	if len(files) > maxFiles {
		b.fileErrorf(&fileText{name: files[maxFiles], order: maxFiles}, "", "more than %d files", maxFiles)
		files = files[:maxFiles]
	}
	total := 0
	b.main.Path = s.main
	dirs := make(map[string]bool)
	for i, name := range files {
		src := &fileText{name: name, order: i}
		f, err := s.open(name)
		for _, d := range f.dirs {
			// In a sticky folder others cannot replace the file that was named.
			if sticky := s.alone && d.mode&unix.S_ISVTX != 0; !dirs[d.name] && !sticky {
				dirs[d.name] = true
				s.checkOwner(b, &fileText{name: d.name, order: i}, d.mode, d.uid)
			}
		}
		seen[name] = f.stamp
		if err != nil {
			s.unopened(b, src, f, err)
			continue
		}
		if f.masked {
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

// unlisted says why the files are not known.
func (s Source) unlisted(b *builder, err error) {
	name, hint := s.main, ""
	var perr *fs.PathError
	if errors.As(err, &perr) {
		name = perr.Path
	}
	if errors.Is(err, fs.ErrPermission) {
		hint = s.unreadable(name, name)
	}
	b.fileErrorf(&fileText{name: name}, hint, "%v", cause(err))
}

// unopened says why a file was not read. An installed configuration may do without
// the main file.
func (s Source) unopened(b *builder, src *fileText, f file, err error) {
	if errors.Is(err, fs.ErrNotExist) && src.name == s.main && !s.alone {
		b.main.Missing = true
		b.warnings = append(b.warnings, Problem{
			Pos: Position{File: src.name}, Severity: SeverityWarning, order: src.order, Message: "does not exist",
			Hint: "a daemon whose configuration had it takes no reload without it",
		})
		return
	}
	b.files = append(b.files, src.name)
	if errors.Is(err, fs.ErrPermission) {
		f.hint = s.unreadable(src.name, f.denied)
	}
	b.fileErrorf(src, f.hint, "%v", cause(err))
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

// cause is err without the path, which the position says already.
func cause(err error) error {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		return perr.Err
	}
	return err
}
