package daemon

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
	"github.com/slicelb/slicelb/unitwatch/anchor"
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

// A daemon that cannot give the kernel its slices for that reason ends, and says so.
func TestTooDeepAtStart(t *testing.T) {
	d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
	d.rootLevel = anchor.MaxLevel
	d.running = sourceOf(t, "[group.web]\nslices = [\"web.slice\"]\n"+oneVIP)
	d.see(t.Context(), &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
	var bad *ConfigError
	if err := d.hopeless(); !errors.As(err, &bad) || !strings.Contains(err.Error(), "which is at level 31 itself") {
		t.Errorf("%v", err)
	}
}
