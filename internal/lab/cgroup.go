package lab

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// mountPoint is one line of a mountinfo file.
type mountPoint struct{ root, dir, fs string }

func readMounts(path string) ([]mountPoint, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Spaces and their like stand in octal.
	plain := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var mounts []mountPoint
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// 36 35 98:0 /root /dir options [optional fields] - fs source super-options
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 1 {
			continue
		}
		mounts = append(mounts, mountPoint{root: plain.Replace(left[3]), dir: plain.Replace(left[4]), fs: right[0]})
	}
	return mounts, lines.Err()
}

// findMount returns the host's cgroup2 mount, at /sys/fs/cgroup or below it on
// a hybrid host. Of several it takes the one that shows most of the tree.
func findMount() (mountPoint, error) {
	mounts, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		return mountPoint{}, err
	}
	mounts = slices.DeleteFunc(mounts, func(m mountPoint) bool { return m.fs != "cgroup2" })
	if len(mounts) == 0 {
		return mountPoint{}, errors.New("no cgroup2 is mounted")
	}
	return slices.MinFunc(mounts, func(a, b mountPoint) int { return len(a.root) - len(b.root) }), nil
}

const namePrefix = "slicelb-lab-"

var nameCount atomic.Uint32

// newName names a lab after the process that owns it: its pid namespace, its
// id, when it started, and a number within it.
func newName() string {
	pid := os.Getpid()
	start, _ := startTime(pid)
	return fmt.Sprintf("%s%d-%d-%d-%d", namePrefix, pidNamespace(), pid, start, nameCount.Add(1))
}

// orphaned tells whether name is that of a lab whose owner is gone. Of names
// from another pid namespace nothing is known.
func orphaned(name string) bool {
	var ns uint64
	var pid int
	var start, n uint64
	name = strings.TrimSuffix(name, ".scope")
	if _, err := fmt.Sscanf(name, namePrefix+"%d-%d-%d-%d", &ns, &pid, &start, &n); err != nil || ns != pidNamespace() {
		return false
	}
	now, err := startTime(pid)
	return errors.Is(err, os.ErrNotExist) || err == nil && now != start
}

func pidNamespace() uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &st) != nil {
		return 0
	}
	return st.Ino
}

// startTime is when a process began, in clock ticks since boot.
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The command, in parentheses, may contain anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	return strconv.ParseUint(fields[19], 10, 64)
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// cgroup is the lab's place in the host's tree: a directory of its own, or a
// scope that the host's systemd delegates.
type cgroup struct {
	dir   string
	scope string // name of the scope; "" where the directory is ours
}

// newCgroup makes the directory, or says which scope adopt will ask for.
func newCgroup(mount mountPoint, name string) (cgroup, error) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		// Two writers in one tree do not go together: where a systemd runs, it
		// must be asked.
		scope := name + ".scope"
		return cgroup{dir: filepath.Join(mount.dir, "system.slice", scope), scope: scope}, nil
	}
	dir := filepath.Join(mount.dir, name)
	return cgroup{dir: dir}, os.Mkdir(dir, 0o755)
}

// open returns the directory to clone into, nil where there is none yet.
func (c cgroup) open() (*os.File, error) {
	if c.scope != "" {
		return nil, nil
	}
	return os.Open(c.dir)
}

// adopt has the host's systemd put pid into a delegated scope.
func (c cgroup) adopt(ctx context.Context, pid int) error {
	if c.scope == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
		"org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))", c.scope, "fail",
		"5", "PIDs", "au", "1", strconv.Itoa(pid), "Delegate", "b", "true", "Slice", "s", "system.slice",
		"CollectMode", "s", "inactive-or-failed", "Description", "s", "slicelb test laboratory", "0").CombinedOutput()
	if err != nil {
		return fmt.Errorf("ask systemd for %s: %w: %s", c.scope, err, out)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		procs, err := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
		if err == nil && slices.Contains(strings.Fields(string(procs)), strconv.Itoa(pid)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", c.scope, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// remove kills what is left in the cgroup and removes it with all below it. A
// directory that is gone is no error. It gives up after some seconds. A scope's
// own directory is left to systemd, which would not learn otherwise that the
// scope is empty.
func (c cgroup) remove() error {
	if !strings.HasPrefix(filepath.Base(c.dir), namePrefix) {
		return nil // nothing was made
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := os.WriteFile(filepath.Join(c.dir, "cgroup.kill"), []byte("1"), 0)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil
		}
		if err = rmdirAll(c.dir, !strings.HasSuffix(c.dir, ".scope")); err == nil {
			continue // to see it gone
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove the lab's cgroup: %w", err)
		}
		// Killed processes leave their cgroup when they like.
		time.Sleep(5 * time.Millisecond)
	}
}

var errStillThere = errors.New("the scope is still there")

// rmdirAll removes the cgroup directories below top from the leaves up, and top
// itself if asked to.
func rmdirAll(top string, itself bool) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil // somebody else removes too
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if dir == top && !itself {
			return errStillThere
		}
		if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}
	}
	return nil
}

// sweep removes the cgroups of labs whose owner is gone and returns them.
func sweep(mount mountPoint) []string {
	var swept []string
	for _, pattern := range []string{namePrefix + "*", "system.slice/" + namePrefix + "*.scope"} {
		dirs, _ := filepath.Glob(filepath.Join(mount.dir, pattern))
		for _, dir := range dirs {
			if orphaned(filepath.Base(dir)) && (cgroup{dir: dir}).remove() == nil {
				swept = append(swept, dir)
			}
		}
	}
	return swept
}
