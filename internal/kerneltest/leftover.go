package kerneltest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A test's cgroup says in its name who made it: the process, by its number in which
// pid namespace. Whoever makes one removes what a killed process left.

var serial atomic.Uint64

func cgroupName() string {
	return fmt.Sprintf("slicelb-test-%d-%d-%d", pidNamespace(), os.Getpid(), serial.Add(1))
}

var cgroupNames = regexp.MustCompile(`^slicelb-test-(\d+)-(\d+)-\d+$`)

var pidNamespace = sync.OnceValue(func() uint64 {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0
	}
	return st.Ino
})

// sweepLeftovers removes, below dir, the empty cgroups of processes of this pid
// namespace that have ended.
func sweepLeftovers(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		m := cgroupNames.FindStringSubmatch(e.Name())
		if m == nil || m[1] != strconv.FormatUint(pidNamespace(), 10) {
			continue
		}
		pid, err := strconv.Atoi(m[2])
		if err != nil || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			continue
		}
		dirs := below(filepath.Join(dir, e.Name()))
		for i := len(dirs) - 1; i >= 0; i-- {
			if unix.Rmdir(dirs[i]) != nil {
				break // somebody is in it
			}
		}
	}
}

// below lists a directory and all below it, each before what is in it.
func below(path string) []string {
	var dirs []string
	_ = filepath.WalkDir(path, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	return dirs
}
