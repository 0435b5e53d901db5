package docs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/leftover"
	"github.com/slicelb/slicelb/unitwatch"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// A row of the table: runtime, path, example, group.
var runtimeRow = regexp.MustCompile("(?m)^\\| ([^|]+) \\| `([^`]+)` \\| ([a-z.]+) \\| `([^`]+)` \\|$")

// TestRuntimes makes every cgroup of the table, and the watcher finds the group that
// the table promises by the example that it names. edge T2, edge T6, edge T20
func TestRuntimes(t *testing.T) {
	page, err := os.ReadFile("runtimes.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := runtimeRow.FindAllStringSubmatch(string(page), -1)
	if want := strings.Count(string(page), "\n| ") - 1; len(rows) != want {
		t.Fatalf("%d of %d rows can be read", len(rows), want)
	}
	examples := map[string]string{}
	err = filepath.WalkDir("../packaging/examples", func(p string, d fs.DirEntry, err error) error {
		examples[filepath.Base(p)] = p
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("making cgroups needs root")
	}
	real := strings.NewReplacer("ALLOC", "0b4c9bde-7b1c-5b3f-8d1c-1f2e3d4c5b6a", "ID", strings.Repeat("0123456789abcdef", 4))
	for _, row := range rows {
		t.Run(row[1], func(t *testing.T) {
			text, err := os.ReadFile(examples[row[3]])
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := config.Parse(row[3], text)
			if err != nil {
				t.Fatal(err)
			}
			cgroup, want := real.Replace(row[2]), real.Replace(row[4])
			if got := groupOf(t, cfg, cgroup); got != want {
				t.Errorf("%s is in the group %q, want %q", cgroup, got, want)
			}
		})
	}
}

// groupOf makes a cgroup and asks the watcher for the group of what runs in it: that
// of the nearest that it lists.
func groupOf(t *testing.T, cfg *config.Config, cgroup string) string {
	t.Helper()
	mount, err := unitwatch.FindRoot()
	if err != nil {
		t.Skip(err)
	}
	root, err := leftover.MkdirTemp(mount)
	if err != nil {
		t.Fatal(err)
	}
	made := []string{root}
	for name := range strings.SplitSeq(strings.Trim(cgroup, "/"), "/") {
		dir := filepath.Join(made[len(made)-1], name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		made = append(made, dir)
	}
	defer func() {
		for _, dir := range slices.Backward(made) {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		}
	}()
	var groups []anchor.Group
	for _, g := range cfg.Groups {
		a := anchor.Group{Name: g.Name, Split: g.Split}
		for _, slice := range g.Anchors {
			a.Patterns = append(a.Patterns, slice.Pattern)
		}
		groups = append(groups, a)
	}
	tree, err := anchor.Compile(groups)
	if err != nil {
		t.Fatal(err)
	}
	noBus := func(context.Context) (io.ReadWriteCloser, error) { return nil, errors.New("no bus in this test") }
	w := unitwatch.New(unitwatch.Options{CgroupRoot: root, Tree: tree, Dial: noBus})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	var snap *unitwatch.Snapshot
	select {
	case snap = <-w.Updates():
	case <-ctx.Done():
		t.Fatal("no snapshot")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for p := cgroup; p != "/"; p = path.Dir(p) {
		for _, c := range snap.Cgroups {
			if c.Path == p && c.Group != "" {
				return c.Group
			}
		}
	}
	return ""
}
