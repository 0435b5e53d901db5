package lb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// sized is a configuration of n VIPs, each with a view, two backends and 3 slots.
func sized(n int) *config.Config {
	cfg := &config.Config{}
	for i := range n {
		group := fmt.Sprintf("g%d", i)
		cfg.Groups = append(cfg.Groups, config.Group{Name: group, Translate: true,
			Anchors: []config.Anchor{{Pattern: "/" + group + ".slice"}, {Pattern: "/x-" + group + ".slice"}, {Pattern: "/" + group + "-*.slice"}}})
		cfg.VIPs = append(cfg.VIPs, config.VIP{
			Name:      fmt.Sprintf("v%d", i),
			Frontends: []config.Frontend{{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80), Proto: config.TCP}},
			Backends: []config.Backend{
				{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 80), Weight: 1},
				{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 81), Weight: 2}},
			Except: []string{group},
		})
	}
	return cfg
}

func sizedState(t *testing.T, n int) *State {
	t.Helper()
	cfg := sized(n)
	tree := treeOf(t, cfg)
	dirs := map[string]uint64{"/": 1}
	for i := range n {
		dirs[fmt.Sprintf("/g%d.slice", i)] = uint64(10 + i)
	}
	s, err := Compile(cfg, tree, walk(tree, dirs), Runtime{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each table is filled to the last entry; one more is refused whole, with
// table, limit and key; what is there serves on. fault F14, edge T24
func TestFullTables(t *testing.T) {
	room := bpf.Limits{Frontends: 100, Cells: 100, Views: 100, Backends: 100, Slots: 100, Groups: 100, Cgroups: 100, Expect: 100}
	for _, c := range []struct {
		table string
		key   string
		set   func(*bpf.Limits)
	}{
		{"frontends", "10.0.0.3:80/tcp", func(l *bpf.Limits) { l.Frontends = 4 }},
		{"cells", "vip v3 (IPv4)", func(l *bpf.Limits) { l.Cells = 7 }},
		{"views", "vip v3 (IPv4)", func(l *bpf.Limits) { l.Views = 3 }},
		{"backends", "vip v3 (IPv4)", func(l *bpf.Limits) { l.Backends = 7 }},
		{"slots", "vip v3 (IPv4)", func(l *bpf.Limits) { l.Slots = 9 }},
		{"groups", "group g3", func(l *bpf.Limits) { l.Groups = 4 }},
		{"cgroups", "cgroup 13", func(l *bpf.Limits) { l.Cgroups = 4 }},
		{"expect", "node=", func(l *bpf.Limits) { l.Expect = 6 }},
	} {
		t.Run(c.table, func(t *testing.T) {
			limits := room
			c.set(&limits)
			m := lbtest.New(limits)
			r := run(t, m)
			if _, err := r.Reconcile(t.Context(), sizedState(t, 3)); err != nil {
				t.Fatalf("to the brim: %v", err)
			}
			if err := r.Settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			before, writes := dumpOf(t, m), m.Writes()

			_, err := r.Reconcile(t.Context(), sizedState(t, 4))
			var full *LimitError
			if !errors.As(err, &full) || !errors.Is(err, bpf.ErrFull) {
				t.Fatalf("one more: %v", err)
			}
			if full.Table != c.table || !strings.Contains(full.Key, c.key) || full.Limit == 0 || full.Wanted < uint64(full.Limit) {
				t.Errorf("error %q: %+v", err, full)
			}
			if got := m.Writes(); got != writes {
				t.Errorf("%d writes", got-writes)
			}
			if got := dumpOf(t, m); got != before {
				t.Errorf("changed:\n%s", got)
			}
			if got := r.Stats().LastError; got == "" {
				t.Error("no error in the statistics")
			}
			if result, err := r.Reconcile(t.Context(), sizedState(t, 3)); err != nil || result.Writes != 0 {
				t.Errorf("the old state again: %+v, %v", result, err)
			}
		})
	}
}

// What a daemon under systemd has no room for, with its own group, is known beforehand:
// as many groups as may be configured are one too many.
func TestFitsWithDaemon(t *testing.T) {
	for n, want := range map[int]bool{16383: true, 16384: false} {
		cfg := &config.Config{Daemon: config.Daemon{Slots: config.DefaultSlots}}
		for i := range n {
			cfg.Groups = append(cfg.Groups, config.Group{Name: fmt.Sprint("g", i), Translate: true})
		}
		var full *LimitError
		if err := Fits(cfg); (err == nil) != want || err != nil && (!errors.As(err, &full) || full.Table != "groups") {
			t.Errorf("%d groups: %v", n, err)
		}
	}
}

// More cgroups than there is room for hold up nothing, as long as root made those
// that are needed: of the others', and of those that say what the one around them
// does, the younger are left out. edge T24, fault F14
func TestCgroupsOfOthersHaveLessRoom(t *testing.T) {
	limits := bpf.Limits{Frontends: 9, Cells: 9, Views: 9, Backends: 9, Slots: 9, Groups: 9, Cgroups: 16, Expect: 9}
	group := &anchor.Match{Group: "web"}
	members := func(needed, foreign, repeats int) Membership {
		m := Membership{Complete: true}
		for i := range foreign {
			m.Cgroups = append(m.Cgroups, Member{ID: uint64(100 + i), Match: group, Foreign: true})
		}
		for i := range repeats {
			m.Cgroups = append(m.Cgroups, Member{ID: uint64(200 + i), Group: "web"})
		}
		for i := range needed {
			m.Cgroups = append(m.Cgroups, Member{ID: uint64(300 + i), Match: group})
		}
		return m
	}
	cfg := &config.Config{Groups: []config.Group{{Name: "web", Translate: true}}}
	m := lbtest.New(limits)
	r := run(t, m)
	for _, c := range []struct {
		name                     string
		needed, foreign, repeats int
		left                     int
		absent                   []uint64 // the first of each kind that is left out
		full                     bool
	}{
		{"room for all", 5, 5, 4, 0, nil, false},
		{"few repeat", 5, 5, 9, 5, []uint64{204}, false},
		{"none repeat", 5, 20, 9, 11 + 9, []uint64{109, 200}, false},
		{"root's take the others' room", 15, 20, 9, 20 + 9, []uint64{100, 200}, false},
		{"root's do not fit", 17, 20, 9, 0, nil, true},
	} {
		s, err := Compile(cfg, nil, members(c.needed, c.foreign, c.repeats), Runtime{})
		if err != nil {
			t.Fatal(err)
		}
		result, err := r.Reconcile(t.Context(), s)
		var full *LimitError
		if errors.As(err, &full) != c.full || err != nil && !c.full {
			t.Fatalf("%s: %v", c.name, err)
		}
		if err != nil {
			continue
		}
		have, err := m.Cgroups()
		if err != nil {
			t.Fatal(err)
		}
		if all := c.needed + c.foreign + c.repeats; result.Left != c.left || len(have) != all-c.left {
			t.Errorf("%s: %d entries of %d, %d left out, want %d", c.name, len(have), all, result.Left, c.left)
		}
		for _, id := range c.absent {
			if _, there := have[id]; there {
				t.Errorf("%s: %d is there", c.name, id)
			}
			if _, there := have[id-1]; !there && id%100 != 0 {
				t.Errorf("%s: %d is not there", c.name, id-1)
			}
		}
	}
}

// What waits for a barrier is freed before a state is refused for want of room.
func TestRoomIsMade(t *testing.T) {
	limits := bpf.Limits{Frontends: 4, Cells: 7, Views: 7, Backends: 7, Slots: 9, Groups: 9, Cgroups: 9, Expect: 9}
	m := lbtest.New(limits)
	r := run(t, m)
	small, large := sizedState(t, 1), sizedState(t, 3)
	for range 3 {
		for _, s := range []*State{large, small} {
			if _, err := r.Reconcile(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := r.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A state that is refused stops neither the freeing of what an earlier one
// replaced nor the retry of what has failed.
func TestRefusalStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := lbtest.DefaultLimits
		limits.Groups = 4
		m := lbtest.New(limits)
		var failing atomic.Bool
		r := run(t, &lbtest.Faulty{Maps: m, Fail: func(string) bool { return failing.Load() }})
		refuse := func() {
			t.Helper()
			if _, err := r.Reconcile(t.Context(), sizedState(t, 4)); !errors.Is(err, bpf.ErrFull) {
				t.Errorf("one group too many: %v", err)
			}
		}
		for _, n := range []int{3, 1} {
			if _, err := r.Reconcile(t.Context(), sizedState(t, n)); err != nil {
				t.Fatal(err)
			}
		}
		refuse()
		settle := func() {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := r.Settle(ctx); err != nil {
				t.Error(err)
			}
			if d, _ := m.Dump(); len(d.CellInfos) != 2 || len(d.Groups) != 2 {
				t.Errorf("not all was freed:\n%s", dumpOf(t, m))
			}
		}
		settle()
		if r.Stats().LastError == "" {
			t.Error("the refusal is forgotten")
		}

		if _, err := r.Reconcile(t.Context(), sizedState(t, 3)); err != nil {
			t.Fatal(err)
		}
		failing.Store(true)
		if _, err := r.Reconcile(t.Context(), sizedState(t, 1)); err == nil {
			t.Error("no error from maps that fail")
		}
		failing.Store(false)
		refuse()
		settle()
	})
}

// What fits by itself but not beside what it replaces is refused, too.
func TestNoRoomToChange(t *testing.T) {
	limits := lbtest.DefaultLimits
	limits.Slots = 5
	m := lbtest.New(limits)
	r := run(t, m)
	cfg := sized(1)
	for i, weights := range [][2]uint32{{1, 2}, {2, 1}} {
		cfg.VIPs[0].Backends[0].Weight, cfg.VIPs[0].Backends[1].Weight = weights[0], weights[1]
		s, err := Compile(cfg, &anchor.Tree{}, Membership{}, Runtime{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Reconcile(t.Context(), s)
		var full *LimitError
		if i == 0 && err != nil || i == 1 && (!errors.As(err, &full) || !full.Change) {
			t.Fatalf("weights %v: %v", weights, err)
		}
	}
}
