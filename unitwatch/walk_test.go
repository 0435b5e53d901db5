package unitwatch

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/scale"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// Whatever came, went or was made anew at the same path since the last walk, by itself
// or with others, a walk finds as one does that has seen nothing before. edge T16
func TestWalkFindsEveryChange(t *testing.T) {
	root := ownCgroup(t)
	fd, err := openDir(unix.AT_FDCWD, root)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	tree := compile(t,
		anchor.Group{Name: "jobs", Patterns: []string{"/jobs.slice"}, Split: "*.scope"},
		group("web", "/a.slice", "/b.slice/b-*.slice"), group("way", "/c.slice/x/y"))
	walked := func(h *hierarchy) []string {
		t.Helper()
		h.begin()
		h.walkAll()
		if h.err != nil {
			t.Fatal(h.err)
		}
		var found []string
		for id, d := range h.byID {
			found = append(found, fmt.Sprintf("%s %d %s %v", d.path, id, d.match.Group, d.member))
		}
		slices.Sort(found)
		return found
	}
	anew := func() *hierarchy {
		t.Helper()
		h, err := newHierarchy(fd, tree)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	// Few names, so that most changes are in places that were looked at.
	tops := []string{"a.slice", "b.slice/b-1.slice", "b.slice/b-2.slice", "jobs.slice", "jobs.slice/s.service", "c.slice", "c.slice/x", "c.slice/x/y"}
	names := []string{"m.scope", "n.service", "a-x.slice", "s.service", "x", "y", "bare"}
	random := rand.New(rand.NewPCG(1, 2))
	h := anew()
	for i := range max(200, scale.Count(20_000)) {
		for range 1 + random.IntN(3) {
			path := filepath.Join(root, tops[random.IntN(len(tops))], names[random.IntN(len(names))])
			switch random.IntN(3) {
			case 0:
				if err := os.MkdirAll(path, 0o755); err != nil {
					t.Fatal(err)
				}
			case 1:
				removeCgroups(t, path)
			default:
				removeCgroups(t, path)
				if err := os.MkdirAll(path, 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got, want := walked(h), walked(anew()); !slices.Equal(got, want) {
			t.Fatalf("after %d rounds:\n%q\nwant\n%q", i, got, want)
		}
	}
}
