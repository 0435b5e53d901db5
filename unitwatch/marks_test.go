package unitwatch

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Who is in which group does not wait for names: of very many units those are read
// afterwards, and go out together. fault F11
func TestNamesOfManyFollow(t *testing.T) {
	root := ownCgroup(t)
	mkdir(t, filepath.Join(root, "a.slice"))
	const n = marksAtOnce + 2*marksBatch
	ids := map[string]string{}
	for i := range n {
		path := fmt.Sprintf("/a.slice/a%d.scope", i)
		mkdir(t, filepath.Join(root, path))
		ids[path] = fmt.Sprintf("%032x", i)
		if err := unix.Setxattr(filepath.Join(root, path), invocationAttr, []byte(ids[path]), 0); err != nil {
			t.Fatal(err)
		}
	}
	w := run(t, Options{CgroupRoot: root, Resync: time.Hour, Tree: compile(t, group("a", "/a.slice"))})
	named := func(s *Snapshot) (named int) {
		for i := range s.Cgroups {
			c := &s.Cgroups[i]
			if c.InvocationID() == "" {
				continue
			}
			if c.InvocationID() != ids[c.Path] || c.Unit != filepath.Base(c.Path) {
				t.Errorf("%s is called %q, invocation %s", c.Path, c.Unit, c.InvocationID())
			}
			named++
		}
		return named
	}
	first := w.await("everything is there", func(s *Snapshot) bool { return s.Complete })
	if len(first.Cgroups) < n || named(first) > marksAtOnce {
		t.Errorf("first: %d cgroups, %d of them named", len(first.Cgroups), named(first))
	}
	w.await("all have their names", func(s *Snapshot) bool { return named(s) == n })
	if s := w.Stats(); s.Snapshots > 3 { // the first, the last, one that says why there is no bus
		t.Errorf("%d snapshots, for names alone", s.Snapshots)
	}

	// Another configuration knows them all at once.
	tree := compile(t, group("b", "/a.slice"))
	w.SetTree(tree)
	next := w.await("the other tree", func(s *Snapshot) bool { return s.Tree == tree })
	if named(next) != n {
		t.Errorf("%d of %d are named after a reload", named(next), n)
	}
}
