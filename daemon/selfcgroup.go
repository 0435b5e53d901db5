package daemon

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/unitwatch"
)

// findSelf finds the daemon's own cgroup, where it has one to itself.
func (d *daemon) findSelf() {
	self, alone, err := ownCgroup(d.root.Path)
	if err != nil {
		d.log.Warn("own cgroup", "err", err)
	}
	if d.selfShared = self != 0 && !alone; alone {
		d.self = self
	}
}

// ownCgroup returns the id of the cgroup that this process alone is in, below
// root. Its calls are never translated: a health check goes to a backend's own
// address, which may be a frontend too. alone is false where other processes are
// in it: they are not to lose their VIPs. An id of 0 without an error means that
// this process is not below root at all.
func ownCgroup(root string) (id uint64, alone bool, err error) {
	path, err := unitwatch.CgroupOf("/proc", os.Getpid())
	if err != nil {
		return 0, false, err
	}
	mounts := []string{root}
	if m, err := unitwatch.FindRoot(); err == nil && m != root {
		mounts = append(mounts, m)
	}
	for _, m := range mounts {
		dir := filepath.Join(m, path)
		if dir != root && !strings.HasPrefix(dir, strings.TrimSuffix(root, "/")+"/") {
			continue
		}
		in, only, err := soleProcess(dir, os.Getpid())
		if err != nil || !in {
			continue // another mount's path of that name
		}
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return 0, false, fmt.Errorf("own cgroup %s: %w", prose.Foreign(path), err)
		}
		return st.Ino, only, nil
	}
	return 0, false, nil
}

// soleProcess says whether a process is in a cgroup, and whether it is the only
// one there.
func soleProcess(dir string, pid int) (in, only bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return false, false, err
	}
	only = true
	for line := range bytes.Lines(b) {
		if string(bytes.TrimSpace(line)) == strconv.Itoa(pid) {
			in = true
		} else {
			only = false
		}
	}
	return in, in && only, nil
}
