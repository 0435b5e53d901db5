package leftover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/unitwatch"
)

// ended is the number of a process that has ended and was waited for: nobody has that
// number for some time.
func ended(t *testing.T) int {
	t.Helper()
	c := exec.Command("true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	return c.Process.Pid
}

func name(namespace uint64, pid int) string {
	return fmt.Sprintf("slicelb-test-%d-%d-1", namespace, pid)
}

// others are directories that stay: of a process that lives, of one that may live in
// another pid namespace, and what is not ours.
func others(gone int) []string {
	return []string{name(pidNamespace(), os.Getpid()), name(pidNamespace()+1, gone), "other", fmt.Sprintf("slicelb-test-%d-x", gone)}
}

func mkdir(t *testing.T, path ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(path...), 0o755); err != nil {
		t.Fatal(err)
	}
}

// there checks which of a parent's directories are there.
func there(t *testing.T, parent string, names []string, want bool) {
	t.Helper()
	for _, n := range names {
		if _, err := os.Stat(filepath.Join(parent, n)); (err == nil) != want {
			t.Errorf("%s: %v, want there: %t", n, err, want)
		}
	}
}

// What a killed process left goes when the next one makes a directory.
func TestMkdirTemp(t *testing.T) {
	parent, gone := t.TempDir(), ended(t)
	left := name(pidNamespace(), gone)
	for _, n := range append(others(gone), left) {
		mkdir(t, parent, n, "run")
		if err := os.WriteFile(filepath.Join(parent, n, "run", "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	foreign := fmt.Sprintf("slicelb-test-%d-%d-2", pidNamespace(), gone)
	mkdir(t, parent, foreign)
	kept := others(gone)
	if os.Geteuid() == 0 { // another user's may be anything
		if err := os.Chown(filepath.Join(parent, foreign), 65534, 65534); err != nil {
			t.Fatal(err)
		}
		kept = append(kept, foreign)
	}
	dir, err := MkdirTemp(parent)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o755 || !names.MatchString(filepath.Base(dir)) {
		t.Errorf("%s: %v, %v", dir, st, err)
	}
	there(t, parent, kept, true)
	there(t, parent, []string{left}, false)
	if _, err := MkdirTemp(filepath.Join(parent, "nosuch")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("where nothing is: %v", err)
	}
}

// So do cgroups, but not one that somebody is in.
func TestCgroups(t *testing.T) {
	root := cgroup(t)
	gone := ended(t)
	left, full := name(pidNamespace(), gone), fmt.Sprintf("slicelb-test-%d-%d-2", pidNamespace(), gone)
	for _, n := range others(gone) {
		mkdir(t, root, n)
	}
	mkdir(t, root, left, "a.slice", "b.scope")
	mkdir(t, root, full, "c.scope")
	fd, err := unix.Open(filepath.Join(root, full, "c.scope"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	member := exec.Command("cat")
	stdin, err := member.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	member.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	if err := member.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = MkdirTemp(root)
	stdin.Close()
	if err := errors.Join(err, member.Wait()); err != nil {
		t.Error(err)
	}
	there(t, root, append(others(gone), full), true)
	there(t, root, []string{left}, false)
}

// cgroup makes one that is there for as long as the test runs.
func cgroup(t *testing.T) string {
	t.Helper()
	unable := t.Skip
	if os.Getenv("CI") == "true" {
		unable = t.Fatal
	}
	if os.Geteuid() != 0 {
		unable("making cgroups needs root")
	}
	mount, err := unitwatch.FindRoot()
	if err != nil {
		unable(err)
	}
	dir, err := MkdirTemp(mount)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
