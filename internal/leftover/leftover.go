// Package leftover makes directories for tests whose names say who made them: the
// process, by its number in which pid namespace. Whoever makes one removes what a
// killed process left, which could not clean up.
package leftover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// MkdirTemp makes a directory in parent that all may read; "" is where temporary files
// are. It removes first what processes of this user and this pid namespace made there
// that have ended; of cgroups, those that nobody is in. Who makes one removes it.
func MkdirTemp(parent string) (string, error) {
	if parent == "" {
		parent = os.TempDir()
	}
	sweep(parent)
	dir, err := os.MkdirTemp(parent, fmt.Sprintf("slicelb-test-%d-%d-*", pidNamespace(), os.Getpid()))
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	return dir, nil
}

var names = regexp.MustCompile(`^slicelb-test-(\d+)-(\d+)-\d+$`)

var pidNamespace = sync.OnceValue(func() uint64 {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0
	}
	return st.Ino
})

func sweep(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() && orphaned(e) {
			// Of a cgroup the files stay until it goes, and it stays where somebody is in it.
			_ = os.RemoveAll(filepath.Join(parent, e.Name()))
		}
	}
}

// orphaned tells whether a directory is that of a process of ours that has ended.
func orphaned(e fs.DirEntry) bool {
	m := names.FindStringSubmatch(e.Name())
	if m == nil || m[1] != strconv.FormatUint(pidNamespace(), 10) {
		return false
	}
	pid, err := strconv.Atoi(m[2])
	if err != nil || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return false
	}
	info, err := e.Info()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
