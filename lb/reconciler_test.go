package lb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// run starts a reconciler that ends with the test.
func run(t testing.TB, dp Datapath) *Reconciler {
	t.Helper()
	r := NewReconciler(dp, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

func compile(t testing.TB, cfg *config.Config) *State {
	t.Helper()
	s, err := Compile(cfg, nil, Membership{Complete: true}, Runtime{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestReconcile(t *testing.T) {
	cfg := &config.Config{
		Groups: []config.Group{{Name: "web", Translate: true}},
		VIPs: []config.VIP{{
			Name:      "db",
			Frontends: []config.Frontend{{Addr: addr("10.96.0.10:5432"), Proto: config.TCP}},
			Backends:  []config.Backend{{Addr: addr("192.0.2.1:5432"), Weight: 2}, {Addr: addr("192.0.2.2:5432"), Weight: 6}},
			Clients:   []string{"web"},
		}},
	}
	m := lbtest.New(lbtest.DefaultLimits)
	r := run(t, m)
	key := bpf.FrontendKey{Addr: addr("10.96.0.10:5432"), Proto: bpf.TCP}
	answer := func(group uint32) string {
		t.Helper()
		a, err := m.Resolve(group, key)
		if err != nil {
			t.Error(err)
		}
		return a.String()
	}
	reconcile := func() Result {
		t.Helper()
		result, err := r.Reconcile(t.Context(), compile(t, cfg))
		if err != nil {
			t.Fatal(err)
		}
		return result
	}

	reconcile()
	both := "balance 192.0.2.1:5432 x1, 192.0.2.2:5432 x3"
	if diff := cmp.Diff([]string{"pass-hidden", both}, []string{answer(0), answer(1)}); diff != "" {
		t.Errorf("clients = web (-want +got):\n%s", diff)
	}
	if n := reconcile().Writes; n != 0 {
		t.Errorf("the same state again: %d writes", n)
	}

	cfg.VIPs[0].Clients, cfg.VIPs[0].Backends = nil, cfg.VIPs[0].Backends[1:]
	reconcile()
	one := "balance 192.0.2.2:5432 x1"
	if diff := cmp.Diff([]string{one, one}, []string{answer(0), answer(1)}); diff != "" {
		t.Errorf("no clients, one backend (-want +got):\n%s", diff)
	}
	if err := r.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	d, _ := m.Dump()
	if len(d.Views) != 0 || len(d.CellInfos) != 1 || d.BackendCells[1].State != bpf.BackendFree {
		t.Errorf("not all was freed: %+v", d)
	}
	if s := r.Stats(); s.Pending != 0 || s.LastError != "" {
		t.Errorf("stats: %+v", s)
	}
}

// The kernel maps a directory before anybody can see it, so an entry that no walk
// has named yet goes only by a walk that began well after it was first read.
// edge T23
func TestEntryWithoutDirectory(t *testing.T) {
	start := time.Unix(1<<30, 0)
	for _, test := range []struct {
		what   string
		walked time.Duration // since the dump
		named  bool          // by an earlier membership
		gone   bool
	}{
		{"a walk before the dump", -time.Millisecond, false, false},
		{"a walk just after it", time.Microsecond, false, false},
		{"one within the time that mkdir may take", appears, false, false},
		{"one later", appears + time.Nanosecond, false, true},
		{"one that was named, by any walk", -time.Millisecond, true, true},
	} {
		t.Run(test.what, func(t *testing.T) {
			d := &bpf.Dump{
				Cgroups: map[uint64]bpf.Rule{77: {Group: 1}},
				Groups:  map[uint32]bpf.Group{0: {Name: HostGroup, Translate: true}, 1: {Name: "web", Translate: true}},
			}
			h := NewHave(d, lbtest.DefaultLimits, start)
			want := &State{Groups: []Group{{Name: "web", Translate: true}}, Complete: true, Walked: start.Add(test.walked)}
			if test.named {
				h.settle(Plan{}, &State{Cgroups: []Cgroup{{ID: 77, Rule: Rule{Group: "web"}}}})
			}
			plan, err := Diff(h, want)
			if err != nil {
				t.Fatal(err)
			}
			var writes []bpf.Write
			if test.gone {
				writes = []bpf.Write{bpf.DelCgroup{ID: 77}}
			}
			if diff := cmp.Diff(writes, plan.Writes); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever call fails, at random, the maps come to be as wanted, by the
// reconciler's own retries.
func TestFaults(t *testing.T) {
	worlds := rapid.Custom(drawWorld)
	for seed := range 60 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(uint64(seed), 1))
				m := lbtest.New(lbtest.DefaultLimits)
				faults := rand.New(rand.NewPCG(uint64(seed), 2))
				var mu sync.Mutex
				left := 200
				dp := &lbtest.Faulty{Maps: m, Fail: func(string) bool {
					mu.Lock()
					defer mu.Unlock()
					fail := left > 0 && faults.IntN(12) == 0
					if fail {
						left--
					}
					return fail
				}}
				r := run(t, dp)
				for i := range 4 {
					w := worlds.Example(seed*10 + i)
					_, err := r.Reconcile(t.Context(), w.state(t))
					if err != nil && !errors.Is(err, lbtest.ErrFault) {
						t.Fatal(err)
					}
					if rnd.IntN(2) == 0 {
						continue // the next one comes before this is done
					}
					if err := r.Settle(t.Context()); err != nil {
						t.Fatal(err)
					}
					check(t, m, w, w, "faults")
					if got, want := text(t, m), text(t, fill(t, w)); got != want {
						t.Fatalf("with faults:\n%s\nwithout:\n%s", got, want)
					}
					if s := r.Stats(); s.LastError != "" || s.Pending != 0 {
						t.Fatalf("stats: %+v", s)
					}
				}
			})
		})
	}
}

// slow is maps whose barrier ends when it is told to.
type slow struct {
	*lbtest.Maps
	begun, end chan struct{}
}

func (s *slow) Barrier() error {
	s.begun <- struct{}{}
	<-s.end
	return s.Maps.Barrier()
}

// A barrier on its way holds nothing up; what it would free is not used before.
func TestBarrierIsNotWaitedFor(t *testing.T) {
	dp := &slow{lbtest.New(lbtest.DefaultLimits), make(chan struct{}), make(chan struct{})}
	r := run(t, dp)
	<-dp.begun // of the start
	dp.end <- struct{}{}

	cfg := sized(1)
	reconcile := func(weight uint32) {
		t.Helper()
		cfg.VIPs[0].Backends[0].Weight = weight
		if _, err := r.Reconcile(t.Context(), compile(t, cfg)); err != nil {
			t.Fatal(err)
		}
	}
	bases := map[uint32]bool{}
	base := func() uint32 {
		t.Helper()
		d, _ := dp.Dump()
		b := d.Cells[1].Base
		if bases[b] {
			t.Errorf("slots at %d are used again before a barrier", b)
		}
		bases[b] = true
		return b
	}
	reconcile(1)
	first := base()
	reconcile(3)
	base()
	<-dp.begun
	for _, weight := range []uint32{5, 7, 9} {
		reconcile(weight)
		base()
	}
	if s := r.Stats(); s.Pending == 0 {
		t.Errorf("nothing is pending: %+v", s)
	}
	settled := make(chan error)
	go func() { settled <- r.Settle(t.Context()) }()
	dp.end <- struct{}{}
	<-dp.begun
	dp.end <- struct{}{}
	if err := <-settled; err != nil {
		t.Fatal(err)
	}
	reconcile(1)
	if d, _ := dp.Dump(); d.Cells[1].Base != first {
		t.Errorf("slots at %d, and %d is free", d.Cells[1].Base, first)
	}
	// Run ends when the barrier does.
	<-dp.begun
	go func() { dp.end <- struct{}{} }()
}

// tracked is a configuration of one group, its tree, and a VIP.
func tracked(t *testing.T, group string) (*config.Config, func(m Membership) *State) {
	cfg := &config.Config{
		Groups: []config.Group{{Name: group, Translate: true, Anchors: []config.Anchor{{Pattern: "/web.slice"}}}},
		VIPs: []config.VIP{{Name: "v",
			Frontends: []config.Frontend{{Addr: addr("10.0.0.1:80"), Proto: config.TCP}},
			Backends:  []config.Backend{{Addr: addr("192.0.2.1:80"), Weight: 1}}}},
	}
	tree := treeOf(t, cfg)
	return cfg, func(m Membership) *State {
		s, err := Compile(cfg, tree, m, Runtime{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func members(t *testing.T, cfg *config.Config, walked time.Time, web ...uint64) Membership {
	tree := treeOf(t, cfg)
	root := tree.Root()
	m := Membership{Complete: true, Walked: walked, Cgroups: []Member{{ID: 1, Match: &root}}}
	for _, id := range web {
		match, _ := tree.Child(tree.Root().Node, "web.slice")
		m.Cgroups = append(m.Cgroups, Member{ID: id, Match: &match, Group: match.Group})
	}
	return m
}

// The kernel maps and unmaps beside the reconciler: what it made after the walk
// began stays until a later walk does not find it; what a snapshot named and
// the next does not goes at once; before all sources have spoken nothing goes.
// edge T4, T13, T23
func TestCgroupsTheKernelMade(t *testing.T) {
	m := lbtest.New(lbtest.DefaultLimits)
	m.Mkdir(90, bpf.Rule{Node: 5}) // of a process before, and gone
	r := run(t, m)
	cfg, state := tracked(t, "web")
	step := func(what string, s *State, want ...uint64) {
		t.Helper()
		if _, err := r.Reconcile(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got, _ := m.Cgroups()
		wanted := map[uint64]bool{}
		for _, id := range want {
			wanted[id] = true
			if _, ok := got[id]; !ok {
				t.Errorf("%s: %d is not mapped", what, id)
			}
		}
		for id := range got {
			if !wanted[id] {
				t.Errorf("%s: %d is mapped", what, id)
			}
		}
	}
	if err := r.Settle(t.Context()); err != nil { // it has looked at the maps
		t.Fatal(err)
	}
	incomplete := members(t, cfg, time.Now(), 10)
	incomplete.Complete = false
	step("not complete", state(incomplete), 1, 10, 90)
	later := func() time.Time { return time.Now().Add(2 * appears) }
	step("complete", state(members(t, cfg, later(), 10)), 1, 10)

	web := bpf.Rule{Group: 1}
	m.Mkdir(20, web)
	early := time.Now()
	step("made after the walk", state(members(t, cfg, early, 10)), 1, 10, 20)
	step("the same walk, looked at again", state(members(t, cfg, early)), 1, 20)
	m.Mkdir(30, web)
	step("named by a snapshot", state(members(t, cfg, early, 30)), 1, 20, 30)
	step("a later walk does not find one", state(members(t, cfg, later().Add(time.Hour), 30)), 1, 30)
	step("no longer named", state(members(t, cfg, early)), 1)

	// Put meets what the kernel was faster with, Set what it has deleted.
	m.Mkdir(40, bpf.Rule{Node: 5})
	step("mapped otherwise by the kernel", state(members(t, cfg, early, 40)), 1, 40)
	if got, _ := m.Cgroups(); got[40] != web {
		t.Errorf("cgroup 40: %v", got[40])
	}
	m.Rmdir(40)
	cfg, state = tracked(t, "other")
	step("gone before its word changes", state(members(t, cfg, early, 40)), 1)
	if s := r.Stats(); s.Errors != 0 {
		t.Errorf("stats: %+v", s)
	}
}

// A directory that is made while a reload runs gets the old group: that index
// is not another's until the directory is looked at.
func TestGroupIsKeptForWhatTheKernelMade(t *testing.T) {
	m := lbtest.New(lbtest.DefaultLimits)
	r := run(t, m)
	cfg, state := tracked(t, "old")
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	reconcile := func(s *State) {
		t.Helper()
		_, err := r.Reconcile(t.Context(), s)
		ok(err)
		ok(r.Settle(t.Context()))
	}
	reconcile(state(members(t, cfg, time.Now(), 10)))
	m.Mkdir(20, bpf.Rule{Group: 1})
	cfg, state = tracked(t, "new")
	reconcile(state(members(t, cfg, time.Time{}, 10)))
	d, _ := m.Dump()
	if d.Groups[1].Name != "old" || d.Groups[2].Name != "new" || d.Cgroups[20].Group != 1 {
		t.Fatalf("groups %v, cgroup 20 %v", d.Groups, d.Cgroups[20])
	}
	reconcile(state(members(t, cfg, time.Now(), 10, 20)))
	d, _ = m.Dump()
	if d.Groups[1].Name != "" || d.Cgroups[20].Group != 2 || len(d.Expect) != 1 {
		t.Fatalf("groups %v, cgroup 20 %v, expect %v", d.Groups, d.Cgroups[20], d.Expect)
	}
}
