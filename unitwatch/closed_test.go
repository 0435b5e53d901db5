package unitwatch

import (
	"os"
	"runtime"
	"slices"
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
// same, the walk is whole, and when it is allowed again all is there.
func TestClosedDirectories(t *testing.T) {
	root := ownCgroup(t)
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, root: root}
	w.mkdirAll("/a.slice/a-x.slice/m.scope")
	w.mkdirAll("/a.slice/a-y.slice/n.scope")
	w.mkdirAll("/user.slice/own.slice/o.scope")
	fd, err := openDir(unix.AT_FDCWD, root)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	h, err := newHierarchy(fd, compile(t, anchor.Group{Name: "a", Patterns: []string{"/a.slice"}, Split: "*.scope"}, group("own", "/user.slice/own.slice")))
	if err != nil {
		t.Fatal(err)
	}
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
	for _, s := range []struct {
		what   string
		path   string
		mode   os.FileMode
		how    string
		want   []string
		closed int
	}{
		{"at first", "/a.slice", 0o755, "walk", open, 0},
		{"one that was looked into", "/a.slice/a-x.slice", 0o700, "look", without(2), 1},
		{"walked", "/a.slice/a-x.slice", 0o700, "walk", without(2), 1},
		{"an anchor too", "/user.slice/own.slice", 0o700, "walk", without(2, 7), 2},
		{"listed, and no more", "/a.slice", 0o744, "walk", without(2, 4, 7), 3},
		{"open again", "/a.slice", 0o755, "walk", without(2, 7), 2},
		{"an anchor open again", "/user.slice/own.slice", 0o755, "walk", without(2), 1},
		{"all open", "/a.slice/a-x.slice", 0o755, "look", open, 0},
	} {
		if err := os.Chmod(w.path(s.path), s.mode); err != nil {
			t.Fatal(err)
		}
		h.begin()
		asNobody(t, look[s.how])
		snap := h.snapshot()
		if got := show(snap)[:]; h.err != nil || !slices.Equal(got, s.want) || snap.closed != s.closed {
			t.Errorf("%s: %d closed, %v:\n%q\nwant\n%q", s.what, snap.closed, h.err, got, s.want)
		}
	}
}
