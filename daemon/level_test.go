package daemon

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/unitwatch"
)

// A root that is named lies where it lies, however it is called. edge D27
func TestRootLevel(t *testing.T) {
	top := kerneltest.NewCgroup(t)
	level := func(path string) int {
		t.Helper()
		root, err := unitwatch.OpenRoot(path)
		if err != nil {
			t.Fatal(err)
		}
		n, err := rootLevel(root)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	above := level(filepath.Dir(top.Path))
	for path, want := range map[string]int{
		top.Path:                       above + 1,
		top.Make(t, "a", "b").Path:     above + 3,
		top.Path + "/a/../a/b/":        above + 3,
		filepath.Dir(top.Path) + "/./": above,
	} {
		if got := level(path); got != want {
			t.Errorf("%s: level %d, want %d", path, got, want)
		}
	}
}

// What the programs would not find from further down is refused. edge D23
func TestTooDeep(t *testing.T) {
	cfg, err := config.Parse("a.toml", []byte("[group.web]\nslices = [\"web.slice\", \"/a b/c*/d\"]\n[group.root]\nslices = [\"/\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	for root, want := range map[int]string{
		0: "", 28: "",
		29: `a.toml:2:24: slice "/a b/c*/d" of group.web lies 3 levels below the cgroup root, which is at level 29 itself: 2 at most`,
		31: "a.toml:2:11: slice web.slice of group.web lies 1 level below",
	} {
		err := tooDeep(cfg, root)
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("a root at level %d: %v, want %q", root, err, want)
		}
	}
}
