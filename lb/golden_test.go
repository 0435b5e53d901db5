package lb

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

var update = flag.Bool("update", false, "write what the goldens should hold")

// A script is a file of testdata: steps, each some of these files, and what is
// not said stays as it was.
//
//	STEP.toml    the configuration
//	STEP.dirs    the cgroups that exist: "ID PATH"
//	STEP.kernel  what the kernel does before the step: "mkdir ID PATH", "rmdir ID"
//	STEP.verdict "drain VIP ADDRESS", "down VIP ADDRESS", "fail VIP ADDRESS SECOND", "slow VIP ADDRESS TENTHS"
//	STEP.self    the path of the daemon's cgroup
//	STEP.writes  wanted: the writes, in their order, and the barriers between them
//	STEP.dump    wanted: what the maps hold when all is settled
type script struct {
	archive *txtar.Archive
	steps   []string
	files   map[string]int // name -> position
}

func readScript(t *testing.T, name string) *script {
	t.Helper()
	a, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{archive: a, files: map[string]int{}}
	for i, f := range a.Files {
		step, _, ok := strings.Cut(f.Name, ".")
		if !ok {
			t.Fatalf("%s: file %s has no kind", name, f.Name)
		}
		if !slices.Contains(s.steps, step) {
			s.steps = append(s.steps, step)
		}
		s.files[f.Name] = i
	}
	return s
}

// recorder notes what is written.
type recorder struct {
	Datapath
	mu    sync.Mutex
	lines []string
}

func (r *recorder) note(line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line)
}

func (r *recorder) Apply(w bpf.Write) error {
	err := r.Datapath.Apply(w)
	switch {
	case err == nil:
		r.note(w.String())
	case errors.Is(err, bpf.ErrExist):
		r.note(w.String() + ": exists")
	case errors.Is(err, bpf.ErrNotExist):
		r.note(w.String() + ": gone")
	default:
		r.note(err.Error())
	}
	return err
}

func (r *recorder) Barrier() error {
	r.note("barrier")
	return r.Datapath.Barrier()
}

func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := strings.Join(append(r.lines, ""), "\n")
	r.lines = nil
	return out
}

func TestGoldenFake(t *testing.T) {
	goldens(t, func(t *testing.T) Datapath { return lbtest.New(lbtest.DefaultLimits) })
}

// The same on the kernel's maps.
func TestGoldenKernel(t *testing.T) {
	kerneltest.Root(t)
	goldens(t, func(t *testing.T) Datapath {
		d, err := bpf.New(bpf.Options{Slots: 1 << 16})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		return d
	})
}

func goldens(t *testing.T, open func(*testing.T) Datapath) {
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			s := readScript(t, name)
			s.run(t, open(t))
			if *update {
				if err := os.WriteFile(name, txtar.Format(s.archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func (s *script) run(t *testing.T, dp Datapath) {
	rec := &recorder{Datapath: dp}
	r := run(t, rec)
	if err := r.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	rec.take()
	var cfg *config.Config
	var tree *anchor.Tree
	var m Membership
	var rt Runtime
	self := "" // nowhere
	dirs := map[string]uint64{"/": 1}
	for n, step := range s.steps {
		if text, ok := s.file(step, "toml"); ok {
			var err error
			if cfg, err = config.Parse(step+".toml", []byte(text)); err != nil {
				t.Fatalf("%s.toml: %v", step, err)
			}
			tree = treeOf(t, cfg)
		}
		if text, ok := s.file(step, "dirs"); ok {
			dirs = map[string]uint64{"/": 1}
			for _, f := range fields(text) {
				dirs[f[1]] = number(t, f[0])
			}
		}
		if text, ok := s.file(step, "kernel"); ok {
			kernel(t, dp, tree, m, text)
		}
		if text, ok := s.file(step, "verdict"); ok {
			rt = Runtime{Verdicts: map[Endpoint]Verdict{}}
			for _, f := range fields(text) {
				v := Verdict{Drain: f[0] == "drain", Down: f[0] == "down", Failing: f[0] == "fail"}
				switch f[0] {
				case "fail":
					v.Since = time.Unix(int64(number(t, f[3])), 0)
				case "slow":
					v.Tenths = uint8(number(t, f[3]))
				}
				rt.Verdicts[Endpoint{f[1], netip.MustParseAddrPort(f[2])}] = v
			}
		}
		if text, ok := s.file(step, "self"); ok {
			self = strings.TrimSpace(text)
		}
		m = walk(tree, dirs)
		m.Self = dirs[self]
		m.Walked = time.Now()
		state, err := Compile(cfg, tree, m, rt)
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if _, err := r.Reconcile(t.Context(), state); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if err := r.Settle(t.Context()); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		s.compare(t, step, "writes", rec.take())
		s.compare(t, step, "dump", dumpOf(t, dp))
		// A new process finds what this one left, and nothing to do.
		if plan := mustDiff(t, NewHave(must(t)(dp.Dump()), dp.Limits(), time.Time{}), state); len(plan.Writes)+len(plan.After) > 0 {
			t.Errorf("step %d, %s: after a restart: %v, then %v", n+1, step, plan.Writes, plan.After)
		}
	}
}

func must(t testing.TB) func(*bpf.Dump, error) *bpf.Dump {
	return func(d *bpf.Dump, err error) *bpf.Dump {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
}

func dumpOf(t testing.TB, dp Datapath) string {
	t.Helper()
	var b strings.Builder
	if err := WriteDump(&b, must(t)(dp.Dump())); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func (s *script) file(step, kind string) (string, bool) {
	i, ok := s.files[step+"."+kind]
	if !ok {
		return "", false
	}
	return string(s.archive.Files[i].Data), true
}

func (s *script) compare(t *testing.T, step, kind, got string) {
	t.Helper()
	want, ok := s.file(step, kind)
	if !ok {
		return
	}
	if *update {
		s.archive.Files[s.files[step+"."+kind]].Data = []byte(got)
		return
	}
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s.%s (-want +got):\n%s", step, kind, diff)
	}
}

// kernel does by hand what the mkdir and rmdir programs do.
func kernel(t *testing.T, dp Datapath, tree *anchor.Tree, m Membership, text string) {
	t.Helper()
	groups := map[string]uint32{"": 0}
	for i, g := range must(t)(dp.Dump()).Groups {
		groups[g.Name] = i
	}
	for _, f := range fields(text) {
		w := bpf.Write(bpf.DelCgroup{ID: number(t, f[1])})
		if f[0] == "mkdir" {
			match := tree.Root()
			for _, name := range strings.Split(strings.TrimPrefix(f[2], "/"), "/") {
				match, _ = tree.Child(match.Node, name)
			}
			w = bpf.PutCgroup{ID: number(t, f[1]), Rule: bpf.Rule{
				Group: groups[match.Group], Node: uint32(match.Node), Split: match.Split}}
		}
		if err := dp.Apply(w); err != nil {
			t.Fatal(err)
		}
	}
}

func fields(text string) [][]string {
	var out [][]string
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 {
			out = append(out, f)
		}
	}
	return out
}

func number(t testing.TB, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func treeOf(t fataler, cfg *config.Config) *anchor.Tree {
	var groups []anchor.Group
	for _, g := range cfg.Groups {
		a := anchor.Group{Name: g.Name, Split: g.Split}
		for _, p := range g.Anchors {
			a.Patterns = append(a.Patterns, p.Pattern)
		}
		groups = append(groups, a)
	}
	tree, err := anchor.Compile(groups)
	if err != nil {
		t.Fatalf("anchors: %v", err)
	}
	return tree
}

// walk finds the members among directories as the watcher does.
func walk(tree *anchor.Tree, dirs map[string]uint64) Membership {
	m := Membership{Complete: true, Walked: time.Unix(1<<40, 0)}
	found := map[string]Member{}
	for _, p := range slices.Sorted(maps.Keys(dirs)) {
		match := tree.Root()
		c := Member{ID: dirs[p], Path: p, Match: &match}
		if p == "/" {
			c.Group = c.Match.Group
		} else {
			parent := found[path.Dir(p)]
			c.Group = parent.Group
			known := false
			match = anchor.Match{}
			if parent.Match.Node != 0 {
				match, known = tree.Child(parent.Match.Node, path.Base(p))
			}
			if c.Match.Group != "" {
				c.Group = c.Match.Group
			}
			if c.Match.Split {
				c.Group = fmt.Sprintf("%s/%s", c.Group, path.Base(p))
			}
			found[p] = c
			if !known && (c.Group == "" || strings.HasSuffix(p, ".slice")) {
				continue // not a member
			}
		}
		found[p] = c
		m.Cgroups = append(m.Cgroups, c)
	}
	return m
}
