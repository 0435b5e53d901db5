package unitwatch

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// asNobody runs f as a user who owns nothing, in all that has to do with files.
func asNobody(t testing.TB, f func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setfsuid(0); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

// The owner of a cgroup may forbid that it is looked into: it is in its group all the
// same, the walk is whole, and when it is allowed again all is there. What is root's is an
// error.
func TestClosedDirectories(t *testing.T) {
	root := ownCgroup(t)
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, root: root}
	w.mkdirAll("/a.slice/a-x.slice/m.scope")
	w.mkdirAll("/a.slice/a-y.slice/n.scope")
	w.mkdirAll("/user.slice/own.slice/o.scope")
	h := watching(t, w.root, anchor.Group{Name: "a", Patterns: []string{"/a.slice"}, Split: "*.scope"}, group("own", "/user.slice/own.slice"))
	open := []string{
		"/a.slice anchor a", "/a.slice/a-x.slice way a", "/a.slice/a-x.slice/m.scope split a/m.scope",
		"/a.slice/a-y.slice way a", "/a.slice/a-y.slice/n.scope split a/n.scope",
		"/user.slice way ", "/user.slice/own.slice anchor own", "/user.slice/own.slice/o.scope member own",
	}
	without := func(gone ...int) (lines []string) {
		for i, l := range open {
			if !slices.Contains(gone, i) {
				lines = append(lines, l)
			}
		}
		return lines
	}
	look := map[string]func(){
		"walk": func() { h.walkAll() },
		"look": func() { h.look(h.byID[cgroupID(t, w.path("/a.slice/a-x.slice"))]) },
	}
	const somebody = 65533
	for _, s := range []struct {
		what     string
		path     string
		owner    int
		mode     os.FileMode
		how      string
		want     []string
		closed   int
		failures int
	}{
		{"at first", "/a.slice", 0, 0o755, "walk", open, 0, 0},
		{"one that was looked into", "/a.slice/a-x.slice", somebody, 0o700, "look", without(2), 1, 0},
		{"walked", "/a.slice/a-x.slice", somebody, 0o700, "walk", without(2), 1, 0},
		{"an anchor too", "/user.slice/own.slice", somebody, 0o700, "walk", without(2, 7), 2, 0},
		{"listed, and no more", "/a.slice", somebody, 0o744, "walk", without(2, 4, 7), 3, 0},
		{"open again", "/a.slice", 0, 0o755, "walk", without(2, 7), 2, 0},
		{"an anchor open again", "/user.slice/own.slice", 0, 0o755, "walk", without(2), 1, 0},
		{"all open", "/a.slice/a-x.slice", 0, 0o755, "look", open, 0, 0},
		{"root's, looked at", "/a.slice/a-x.slice", 0, 0o700, "look", open, 0, 1},
		{"root's and more", "/user.slice/own.slice", 0, 0o700, "walk", open, 0, 2},
		{"given away", "/a.slice/a-x.slice", somebody, 0o700, "look", without(2), 1, 0},
	} {
		if err := os.Chown(w.path(s.path), s.owner, s.owner); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(w.path(s.path), s.mode); err != nil {
			t.Fatal(err)
		}
		h.begin()
		asNobody(t, look[s.how])
		snap := h.snapshot()
		if got := show(snap); !slices.Equal(got, s.want) || closed(snap) != s.closed || h.failures != s.failures || (h.err != nil) != (s.failures > 0) {
			t.Errorf("%s: %d closed, %d failures, %v:\n%q\nwant\n%q", s.what, closed(snap), h.failures, h.err, got, s.want)
		}
	}
}

// Directories that lie deeper than a walk goes, or whose path is longer than one may be,
// are closed: to be looked at again changes nothing.
func TestTooDeepDirectories(t *testing.T) {
	w := &world{t: t, root: ownCgroup(t)}
	// By way of links in /proc: the paths are too long.
	deepen := func(at string, name string, n int) {
		w.mkdir(at)
		fd, err := openDir(unix.AT_FDCWD, w.path(at))
		if err != nil {
			t.Fatal(err)
		}
		var fds []int
		t.Cleanup(func() {
			for i, fd := range slices.Backward(fds) {
				if i+1 < len(fds) {
					_ = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
				}
				_ = unix.Close(fd)
			}
		})
		fds = append(fds, fd)
		for range n {
			if err := unix.Mkdirat(fd, name, 0o755); err != nil {
				t.Fatal(err)
			}
			if fd, err = openDir(fd, name); err != nil {
				t.Fatal(err)
			}
			fds = append(fds, fd)
		}
	}
	deepen("/deep.slice", "x", maxDepth+3)
	deepen("/long.slice", strings.Repeat("x", 250), 20)
	h := watching(t, w.root,
		anchor.Group{Name: "a", Patterns: []string{"/deep.slice"}, Split: "*.scope"},
		anchor.Group{Name: "b", Patterns: []string{"/long.slice"}, Split: "*.scope"})
	for range 2 {
		h.begin()
		h.walkAll()
		var shut []*dir
		for _, d := range h.byID {
			if d.closed {
				shut = append(shut, d)
			}
		}
		if h.err != nil || len(shut) != 2 {
			t.Fatalf("%d closed, %v", len(shut), h.err)
		}
		for _, d := range shut {
			if deep := depth(d) == maxDepth+1; deep == (len(d.path) > unix.PathMax) {
				t.Errorf("%d deep, %d long", depth(d), len(d.path))
			}
			h.begin()
			if h.look(d); h.err != nil || !d.closed {
				t.Errorf("closed %t, %v", d.closed, h.err)
			}
		}
	}
}

// watching watches a root, and has not looked at it yet.
func watching(t testing.TB, root string, groups ...anchor.Group) *hierarchy {
	t.Helper()
	fd, err := openDir(unix.AT_FDCWD, root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) }) // read-only: nothing to lose
	h, err := newHierarchy(fd, compile(t, groups...))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func closed(s *Snapshot) (n int) {
	for _, c := range s.Cgroups {
		if c.Closed {
			n++
		}
	}
	return n
}
