package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// stamp tells whether a file is still the one that was read.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
	link         bool // masked
	missing      bool
}

type folder struct {
	name string
	mode fs.FileMode
	uid  uint32
}

// file is what open found.
type file struct {
	data   []byte
	masked bool
	mode   fs.FileMode
	uid    uint32
	dirs   []folder // config folders on the way
	stamp  stamp
	hint   string // where there is an error
	denied string // the folder that may not be searched; "": it is the file
}

var (
	errElsewhere  = errors.New("is a link that leaves the configuration's folders")
	errTooMany    = errors.New("too many links")
	errNotRegular = errors.New("is not a regular file")
)

// open reads one file. Below the source's folders every component is opened on
// its own and without following it, so that a link is followed only where it
// may lead, and nothing can be exchanged in between.
func (s Source) open(name string) (file, error) {
	var f file
	fd, err := s.walk(name, &f)
	if err != nil || f.masked {
		return f, err
	}
	h := os.NewFile(uintptr(fd), name)
	defer h.Close()
	st, err := f.stat(fd)
	if err != nil {
		return f, err
	}
	// A person may check a pipe; an installed file is a file.
	regular := st.Mode&unix.S_IFMT == unix.S_IFREG
	if st.Mode&unix.S_IFMT == unix.S_IFDIR || !regular && s.folders != nil {
		return f, errNotRegular
	}
	if !regular {
		f.stamp = stamp{}
	}
	f.data, err = io.ReadAll(io.LimitReader(h, maxFileBytes+1))
	if err == nil && len(f.data) > maxFileBytes {
		err = fmt.Errorf("longer than %d bytes", maxFileBytes)
	}
	return f, err
}

// look returns what open would find, without reading it.
func (s Source) look(name string) stamp {
	var f file
	fd, err := s.walk(name, &f)
	if err != nil || f.masked {
		return f.stamp
	}
	defer unix.Close(fd)
	_, _ = f.stat(fd) // an error leaves a stamp that differs
	return f.stamp
}

func (f *file) stat(fd int) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return st, &fs.PathError{Op: "stat", Err: err}
	}
	f.mode = fs.FileMode(st.Mode & 0o7777)
	f.uid = st.Uid
	f.stamp = stamp{dev: st.Dev, ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
	return st, nil
}

// walk opens name for reading, following only links that stay.
func (s Source) walk(name string, f *file) (int, error) {
	if s.folders == nil {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return fd, pathError(name, err)
	}
	for range 16 {
		fd, target, err := s.step(name, f)
		if err != nil {
			f.stamp.missing = errors.Is(err, fs.ErrNotExist)
			return -1, err
		}
		switch {
		case target == "":
			return fd, nil
		case target == "/dev/null":
			f.masked, f.stamp.link = true, true
			return -1, nil
		}
		name = target
	}
	return -1, errTooMany
}

// step opens name below the folder that holds it, or says where the first link
// on the way leads.
func (s Source) step(name string, f *file) (fd int, target string, err error) {
	dir := ""
	for _, d := range s.folders {
		if strings.HasPrefix(name, d+"/") {
			dir = d
		}
	}
	if dir == "" {
		f.hint = "it leads to " + printable(name)
		return -1, "", errElsewhere
	}
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		f.denied = filepath.Dir(dir)
		return -1, "", pathError(dir, err)
	}
	defer func() { unix.Close(at) }()

	parts := strings.Split(strings.TrimPrefix(name, dir+"/"), "/")
	for i, part := range parts {
		if err := f.passed(at, dir); err != nil {
			return -1, "", err
		}
		full := dir + "/" + part
		next, err := unix.Openat(at, part, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			f.denied = dir
			return -1, "", pathError(full, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(next, &st); err != nil {
			unix.Close(next)
			return -1, "", pathError(full, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			// In a folder that is not root's, whose link it is decides too.
			if f.dirs[len(f.dirs)-1].uid != 0 {
				f.dirs = append(f.dirs, folder{name: full, mode: 0o755, uid: st.Uid})
			}
			target, err := s.target(next, dir, parts[i+1:])
			unix.Close(next)
			return -1, target, pathError(full, err)
		}
		if i == len(parts)-1 {
			unix.Close(next)
			// O_NONBLOCK: a FIFO must not hold us up.
			fd, err := unix.Openat(at, part, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			return fd, "", pathError(full, err)
		}
		unix.Close(at)
		at, dir = next, full
	}
	return -1, "", pathError(name, unix.EINVAL)
}

// target is where a link that is open as fd and stands in dir leads, with rest
// behind it. A link to /dev/null leads there whatever the root; only the file itself
// can be one.
func (s Source) target(fd int, dir string, rest []string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	to := string(buf[:n])
	switch {
	case to == "/dev/null" && len(rest) == 0:
		return to, nil
	case filepath.IsAbs(to):
		to = s.root + filepath.Clean(to)
	default:
		to = filepath.Join(dir, to)
	}
	return filepath.Join(append([]string{to}, rest...)...), nil
}

// passed notes a folder whose owner decides about the file.
func (f *file) passed(fd int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return pathError(name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return pathError(name, unix.ENOTDIR)
	}
	f.dirs = append(f.dirs, folder{name: name, mode: fs.FileMode(st.Mode & 0o7777), uid: st.Uid})
	return nil
}

func pathError(name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "open", Path: name, Err: err}
}
