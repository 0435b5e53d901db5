package unitwatch

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// RootReason says why a cgroup root cannot be used.
type RootReason uint8

const (
	NoCgroups     RootReason = iota // no cgroup filesystem is mounted
	V1Only                          // cgroup v1 is mounted, cgroup2 is not
	NotCgroup2                      // the path is on another filesystem
	NotTheRoot                      // the visible root is not the hierarchy's: a cgroup namespace
	NotAccessible                   // the path cannot be opened
)

// RootError is returned by FindRoot and CheckRoot.
type RootError struct {
	Reason RootReason
	Path   string // "" if none was found
	Err    error  // of NotAccessible
}

func (e *RootError) Unwrap() error { return e.Err }

func (e *RootError) Error() string {
	switch e.Reason {
	case NoCgroups:
		return "cgroup root: no cgroup2 filesystem is mounted"
	case V1Only:
		return "cgroup root: this host mounts cgroup v1 alone; cgroup2 is needed, unified or at a mount point of its own"
	case NotCgroup2:
		return fmt.Sprintf("cgroup root %q: not a cgroup2 filesystem", e.Path)
	case NotTheRoot:
		return fmt.Sprintf("cgroup root %q: in this cgroup namespace it is not the hierarchy's root, so that processes outside stay unseen", e.Path)
	default:
		return fmt.Sprintf("cgroup root %q: %v", e.Path, e.Err)
	}
}

const (
	mountinfo = "/proc/self/mountinfo"
	// The first inode number that the kernel gives in a hierarchy is its root's.
	rootInode = 1
)

// Root is the folder below which everything happens.
type Root struct {
	Path       string
	Namespaced bool // it is not the hierarchy's own root
}

// OpenRoot takes the folder that is named, or else what FindRoot finds.
func OpenRoot(named string) (Root, error) {
	path := named
	if path == "" {
		var err error
		if path, err = FindRoot(); err != nil {
			return Root{}, err
		}
	}
	id, err := CheckRoot(path)
	if err != nil {
		return Root{}, err
	}
	return Root{Path: path, Namespaced: !IsHierarchyRoot(id)}, nil
}

// Top is the highest cgroup that can be seen above the root, and how many levels the root
// lies below it.
func (r Root) Top() (id uint64, below int, err error) {
	var top, st unix.Stat_t
	if err := unix.Stat(r.Path, &top); err != nil {
		return 0, 0, fmt.Errorf("cgroup root %q: %w", r.Path, err)
	}
	for up := r.Path; top.Ino != rootInode; below++ {
		up += "/.."
		if err := unix.Stat(up, &st); err != nil {
			return 0, 0, fmt.Errorf("above the cgroup root: %q: %w", up, err)
		}
		if st.Dev != top.Dev { // top is where it is mounted
			break
		}
		top = st
	}
	return top.Ino, below, nil
}

// FindRoot returns the mount point of the cgroup2 hierarchy: unified, or hybrid
// beside v1. Errors are of type *RootError: v1 alone is refused, and so is a
// cgroup namespace that hides the hierarchy's root, which the caller may accept
// by naming the root itself and using CheckRoot.
func FindRoot() (string, error) {
	f, err := os.Open(mountinfo)
	if err != nil {
		return "", fmt.Errorf("cgroup root: %w", err)
	}
	defer f.Close()
	mounts, v1, err := cgroupMounts(f)
	if err != nil {
		return "", fmt.Errorf("cgroup root: %s: %w", mountinfo, err)
	}
	if len(mounts) == 0 {
		if v1 {
			return "", &RootError{Reason: V1Only}
		}
		return "", &RootError{Reason: NoCgroups}
	}
	var first error
	for _, path := range mounts { // one may be hidden by a later mount
		id, err := CheckRoot(path)
		switch {
		case err == nil && id == rootInode:
			return path, nil
		case err == nil:
			err = &RootError{Reason: NotTheRoot, Path: path}
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

// CheckRoot returns the cgroup id of a cgroup2 directory that is to serve as
// the root. Errors are of type *RootError.
func CheckRoot(path string) (id uint64, err error) {
	fd, err := openDir(unix.AT_FDCWD, path)
	if err != nil {
		return 0, &RootError{Reason: NotAccessible, Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := isCgroup2(fd, path); err != nil {
		return 0, err
	}
	id, _, err = inode(fd)
	if err != nil {
		return 0, &RootError{Reason: NotAccessible, Path: path, Err: err}
	}
	return id, nil
}

// IsHierarchyRoot reports whether a cgroup id is that of the whole hierarchy's
// root, as no root in a cgroup namespace of its own is.
func IsHierarchyRoot(id uint64) bool { return id == rootInode }

func isCgroup2(fd int, path string) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return &RootError{Reason: NotAccessible, Path: path, Err: err}
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		return &RootError{Reason: NotCgroup2, Path: path}
	}
	return nil
}

// cgroupMounts returns where mountinfo says that the whole cgroup2 filesystem
// is mounted, the usual places first, and whether cgroup v1 is mounted.
func cgroupMounts(r io.Reader) (mounts []string, v1 bool, err error) {
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		// id parent major:minor root mountpoint options [optional...] - type source options
		before, after, ok := strings.Cut(scan.Text(), " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 6 {
			continue
		}
		kind, _, _ := strings.Cut(after, " ")
		switch kind {
		case "cgroup":
			v1 = true
		case "cgroup2":
			mounts = append(mounts, unescapeMount(fields[4]))
		}
	}
	usual := []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"}
	slices.SortStableFunc(mounts, func(a, b string) int { return slices.Index(usual, b) - slices.Index(usual, a) })
	return slices.Compact(mounts), v1, scan.Err()
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return filepath.Clean(b.String())
}
