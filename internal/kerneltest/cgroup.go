package kerneltest

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/leftover"
)

// Cgroup is a directory of the cgroup2 hierarchy that a test made.
type Cgroup struct {
	Path string // in the file system
}

// NewCgroup makes a cgroup just below the hierarchy's root, with a name that
// belongs to this process alone. It goes with the test, and all below it.
func NewCgroup(t testing.TB) *Cgroup {
	t.Helper()
	Root(t)
	dir, err := leftover.MkdirTemp(hierarchy(t))
	if err != nil {
		t.Fatal(err)
	}
	c := &Cgroup{Path: dir}
	t.Cleanup(func() { c.clear(t) })
	return c
}

// Make makes cgroups below c, one below the other, and returns the last.
func (c *Cgroup) Make(t testing.TB, path ...string) *Cgroup {
	t.Helper()
	last := c
	for _, name := range path {
		last = &Cgroup{Path: filepath.Join(last.Path, name)}
		if err := os.Mkdir(last.Path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	return last
}

// Remove removes a cgroup that has no processes and no cgroups left.
func (c *Cgroup) Remove(t testing.TB) {
	t.Helper()
	if err := c.remove(); err != nil {
		t.Fatal(err)
	}
}

// remove waits for processes that have just ended to leave.
func (c *Cgroup) remove() error {
	var err error
	_ = until(func() error {
		if err = unix.Rmdir(c.Path); errors.Is(err, unix.EBUSY) {
			return err
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (c *Cgroup) clear(t testing.TB) {
	dirs := below(c.Path)
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := (&Cgroup{Path: dirs[i]}).remove(); err != nil {
			t.Errorf("remove %s: %v", dirs[i], err)
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

// ID is the cgroup's id: its inode number.
func (c *Cgroup) ID(t testing.TB) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(c.Path, &st); err != nil {
		t.Fatalf("stat %s: %v", c.Path, err)
	}
	return st.Ino
}

// Open opens the directory; it is closed with the test.
func (c *Cgroup) Open(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Open(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// hierarchy finds where cgroup2 is mounted; in a machine that mounts none, it
// mounts it for the length of the test.
func hierarchy(t testing.TB) string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// 36 35 98:0 /root /mount options - type source superoptions
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if ok && strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 && fields[3] == "/" {
			return fields[4]
		}
	}
	dir := t.TempDir()
	if err := unix.Mount("cgroup2", dir, "cgroup2", 0, ""); err != nil {
		t.Fatalf("mount cgroup2: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}
