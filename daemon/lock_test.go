package daemon

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// One daemon a cgroup tree, whatever its socket is. fault F5
func TestSecondDaemonOfATree(t *testing.T) {
	p := start(t, oneVIP, newMemoryPath(lbtest.DefaultLimits), fdstoretest.New(t).Environment())
	s := p.await("well", well)
	dir := t.TempDir()
	err := Run(t.Context(), Options{
		Config: p.config, CgroupRoot: s.DataPlane.CgroupRoot, Socket: filepath.Join(dir, "api.sock"),
		Log: io.Discard, Lookup: fdstoretest.LookupIn(nil), Unset: func(string) error { return nil },
		open: func(bpf.Options, []bpf.NamedFD) (opened, error) { t.Error("opened"); return opened{}, io.EOF },
	})
	if !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), s.DataPlane.CgroupRoot) {
		t.Errorf("second daemon: %v", err)
	}
}

// Whoever can read the directory can lock it: that must not keep the service down.
// It serves, says so, and takes the lock once it is free.
func TestLockOfAStranger(t *testing.T) {
	root := kerneltest.NewCgroup(t).Path
	stranger, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if err := unix.Flock(int(stranger.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	p := startIn(t, root, oneVIP, newMemoryPath(lbtest.DefaultLimits), fdstoretest.New(t).Environment())
	p.await("told", func(s *api.Status) bool {
		return s.DataPlane.Attached && slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, "has locked") && strings.HasSuffix(p, ": "+root) })
	})
	stranger.Close()
	p.await("its own", func(s *api.Status) bool {
		return !slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, "has locked") })
	})
	again, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if free, err := lockRoot(again); free || err != nil {
		t.Errorf("the lock is free: %t, %v", free, err)
	}
}

// fault F5
func TestLock(t *testing.T) {
	dir := t.TempDir()
	first, err := takeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(dir); err == nil || !strings.Contains(err.Error(), "another daemon runs") {
		t.Errorf("second: %v", err)
	}
	path := filepath.Join(dir, lockName)
	if !holds(first, path) {
		t.Error("the lock is not seen as held")
	}
	// The lock of a file that somebody removed guards nothing.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if holds(first, path) {
		t.Error("a removed lock is seen as held")
	}
	first.Close()
	again, err := takeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	// A link to elsewhere is not followed.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), path); err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(dir); err == nil {
		t.Error("a link is followed")
	}
}
