package lb

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
