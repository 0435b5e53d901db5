package daemon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
)

const twoVIPs = `[vip.db]
frontends = ["10.96.0.10:80"]
[[vip.db.backend]]
address = "192.0.2.1:80"
[[vip.db.backend]]
address = "192.0.2.2:80"
[vip.many]
frontends = ["10.96.0.11:80"]
algorithm = "maglev"
[[vip.many.backend]]
unit = "web@*.service"
address = "127.0.0.1:%i"
`

// running are the units web@first to web@last.
func running(first, last int) *unitwatch.Units {
	u := &unitwatch.Units{Patterns: []string{"web@*.service"}}
	for i := first; i <= last; i++ {
		u.List = append(u.List, unitwatch.Unit{Name: fmt.Sprintf("web@%d.service", i), State: unitwatch.UnitActive})
	}
	return u
}

// kernelBackends are the ports of a VIP's backends that the maps hold.
func kernelBackends(t *testing.T, dp *memoryPath, vip string) []int {
	t.Helper()
	dump, err := dp.Dump()
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for index, b := range dump.Backends {
		if dump.CellInfos[b.Cell].VIP == vip && dump.BackendCells[index].State != bpf.BackendFree {
			out = append(out, int(b.Addr.Port()))
		}
	}
	slices.Sort(out)
	return out
}

// A VIP whose units find no room does without some, and says so; nothing else waits
// for it: another VIP's orders are carried out, and its own units that go are gone.
// edge T24, fault F14
func TestUnitsLeftOut(t *testing.T) {
	for _, tt := range []struct {
		name, table string
		set         func(*bpf.Limits)
		most        int // units that fit
	}{
		{"slots", "slots", func(l *bpf.Limits) { l.Slots = 4096 }, 20},
		{"backends", "backends", func(l *bpf.Limits) { l.Backends = 1 + 2 + 30 }, 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limits := lbtest.DefaultLimits
			tt.set(&limits)
			dp := newMemoryPath(limits)
			d := bare(t, fdstoretest.New(t), dp)
			ctx := t.Context()
			d.running, d.lockHeld = sourceOf(t, twoVIPs), true
			d.see(ctx, &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
			see := func(u *unitwatch.Units) string {
				t.Helper()
				d.seeUnits(ctx, u)
				for range 3 { // of the loop's ticks
					d.retryPart(time.Now())
					d.settle(ctx)
					if d.applyErr != nil {
						t.Fatal(d.applyErr)
					}
					if err := d.rec.Settle(ctx); err != nil {
						t.Fatal(err)
					}
				}
				if len(d.cramped.vips) > 0 {
					t.Errorf("stays as it is, where some could be left out: %v", d.cramped.vips)
				}
				d.publish()
				return strings.Join(d.view.Load().problems, "\n")
			}
			left := func(of int) string {
				return fmt.Sprintf("vip.many: %d of its %d backends that are units are left out: table %s ", of-tt.most, of, tt.table)
			}

			if text := see(running(1005, 1010)); strings.Contains(text, "left out") || len(kernelBackends(t, dp, "many")) != 6 {
				t.Fatalf("room for all: %s", text)
			}
			if text := see(running(1001, 1065)); !strings.Contains(text, left(65)) {
				t.Errorf("too many: %s, want %s", text, left(65))
			}
			// Who had a place keeps it.
			have := kernelBackends(t, dp, "many")
			if len(have) != tt.most || have[0] != 1001 || !slices.Contains(have, 1005) || !slices.Contains(have, 1010) {
				t.Errorf("backends %v", have)
			}
			v := d.running.vip("many")
			c := &counted{source: d.running, part: d.ranPart(), kernel: d.kernel}
			for _, b := range c.backends(v, "", v.Backends) {
				if out := strings.Contains(b.Reason, "left out"); out == slices.Contains(have, int(mustPort(b.Address))) {
					t.Errorf("%s: %s", b.Address, b.Reason)
				}
			}
			change := &backendChange{vip: "db", addr: endpointOf("db", "192.0.2.1:80").Addr, state: api.OrderMaint, ctx: ctx, done: make(chan backendChanged, 1)}
			d.change(ctx, change)
			if r := <-change.done; r.err != nil {
				t.Errorf("an order for another VIP: %v", r.err)
			}
			if !d.kernel.Verdict(endpointOf("db", "192.0.2.1:80")).Down {
				t.Error("the kernel does not have the order")
			}
			// What is gone is gone, and another is in its place.
			gone := running(1001, 1065)
			gone.List = slices.DeleteFunc(gone.List, func(u unitwatch.Unit) bool { return u.Name == "web@1005.service" })
			text := see(gone)
			if have := kernelBackends(t, dp, "many"); len(have) != tt.most || slices.Contains(have, 1005) || !strings.Contains(text, left(64)) {
				t.Errorf("one is gone: %v, %s", have, text)
			}
			// All are replaced: those that were there leave no room for those that come.
			text = see(running(2001, 2065))
			if have := kernelBackends(t, dp, "many"); len(have) != tt.most || have[0] != 2001 || !strings.Contains(text, left(65)) {
				t.Errorf("all are replaced: %v, %s", have, text)
			}
			if text := see(running(2001, 2010)); strings.Contains(text, "left out") || len(kernelBackends(t, dp, "many")) != 10 {
				t.Errorf("room again: %s", text)
			}
		})
	}
}

func mustPort(address string) uint16 { return netip.MustParseAddrPort(address).Port() }

// A start with more units than there is room for is ready, and serves as many as
// there is: the files fit. fault F14
func TestStartWithTooManyUnits(t *testing.T) {
	limits := lbtest.DefaultLimits
	limits.Slots = 4096
	dp := newMemoryPath(limits)
	for _, inherited := range []bool{false, true} {
		d := bare(t, fdstoretest.New(t), dp)
		ctx := t.Context()
		d.inherited = inherited
		units := running(1001, 1065)
		for i := range units.List {
			if units.List[i].Since = time.Unix(2000, 0); inherited && i < 40 {
				units.List[i].Since = time.Unix(3000, 0) // those that the process before chose
			}
		}
		d.unitsAsked = unitsOf(units, nil)
		d.running = sourceOf(t, twoVIPs).with(d.unitsAsked)
		d.see(ctx, &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
		if !d.ready || d.hopeless() != nil || d.reloadErr != nil || d.running.lastGood {
			t.Errorf("inherited %t: ready %t, %v, %v", inherited, d.ready, d.applyErr, d.reloadErr)
		}
		if have := kernelBackends(t, dp, "many"); len(have) != 40 || have[39] != 1040 || len(kernelBackends(t, dp, "db")) != 2 {
			t.Errorf("inherited %t: backends %v", inherited, have)
		}
		if inherited && d.writes != 0 {
			t.Errorf("%d writes, with what is there already", d.writes)
		}
	}
}
