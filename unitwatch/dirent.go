package unitwatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// entry is a directory within a directory.
type entry struct {
	name string
	ino  uint64 // cgroupfs gives the inode number that fstat does
}

// readDirs lists the directories in fd, sorted by name; buf is scratch.
func readDirs(fd int, buf []byte) ([]entry, error) {
	var found []entry
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		found = parseDirents(found, buf[:n])
	}
	slices.SortFunc(found, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return found, nil
}

// parseDirents reads struct linux_dirent64: inode, offset, record length, type, name.
func parseDirents(found []entry, buf []byte) []entry {
	const header = 19
	for len(buf) >= header {
		length := int(binary.NativeEndian.Uint16(buf[16:]))
		if length < header || length > len(buf) {
			break
		}
		name := buf[header:length]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		if buf[18] == unix.DT_DIR && string(name) != "." && string(name) != ".." {
			found = append(found, entry{string(name), binary.NativeEndian.Uint64(buf)})
		}
		buf = buf[length:]
	}
	return found
}

// openDir opens a directory below at, without following links.
func openDir(at int, name string) (int, error) {
	for {
		fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// inode is a directory's inode number, and whether others than root may make
// directories in it: it was delegated.
func inode(fd int) (id uint64, delegated bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, false, err
	}
	return st.Ino, delegates(&st), nil
}

func delegates(st *unix.Stat_t) bool { return st.Uid != 0 || st.Mode&(unix.S_IWGRP|unix.S_IWOTH) != 0 }

// gone reports that a directory was removed: before it was opened, or after.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}

// invocationAttr is written by systemd on the cgroups of its units. The owner
// of a delegated cgroup can write it as well: it names, and decides nothing.
const invocationAttr = "user.invocation_id"

// readInvocation returns "" where there is none, or none to be read. By way of
// /proc it takes one call where opening the directory would take three.
func readInvocation(at int, name string) string {
	var buf [64]byte
	n, err := unix.Lgetxattr("/proc/self/fd/"+strconv.Itoa(at)+"/"+name, invocationAttr, buf[:])
	if err != nil || !validInvocation(string(buf[:n])) {
		return ""
	}
	return string(buf[:n])
}

func validInvocation(s string) bool {
	if len(s) != 32 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
