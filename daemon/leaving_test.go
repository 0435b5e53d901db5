package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
)

// An order leaves a VIP with nothing where it takes the last ones that any of its
// callers has in a family; it waits for others that are about to come.
func TestOrderThatLeavesNothing(t *testing.T) {
	const toml = `[group.jobs]
slices = ["jobs.slice"]
[vip.db]
frontends = ["10.96.0.10:80", "[fd00::10]:80"]
[[vip.db.backend]]
unit = "web@*.service"
address = "127.0.0.1:%i"
[[vip.db.backend]]
address = "[fd00::1]:80"
[[vip.db.backend]]
address = "127.0.0.1:99"
weight = 0
[[vip.db.for.jobs.backend]]
address = "127.0.0.1:50"
[[vip.db.for.jobs.backend]]
address = "[fd00::1]:80"
[[vip.db.for.jobs.backend]]
address = "[fd00::2]:80"
[vip.other]
frontends = ["10.96.0.11:80"]
[[vip.other.backend]]
address = "127.0.0.1:1"
`
	const one, two, six, view = "127.0.0.1:1", "127.0.0.1:2", "[fd00::1]:80", "127.0.0.1:50"
	for _, tt := range []struct {
		name          string
		first, second unitwatch.UnitState // of web@1, and of web@2; 0: there is none
		drained       []string            // before
		all           []string
		last, coming  bool
		others        string // that should work, and do not
	}{
		{"the only one", unitwatch.UnitActive, 0, nil, []string{one}, true, false, ""},
		{"one of two", unitwatch.UnitActive, unitwatch.UnitActive, nil, []string{one}, false, false, ""},
		{"both", unitwatch.UnitActive, unitwatch.UnitActive, nil, []string{one, two}, true, false, ""},
		{"another starts", unitwatch.UnitActive, unitwatch.UnitActivating, nil, []string{one}, true, true, two},
		{"another starts, and is meant too", unitwatch.UnitActive, unitwatch.UnitActivating, nil, []string{one, two}, true, false, ""},
		{"another waits to be restarted", unitwatch.UnitActive, unitwatch.UnitWaiting, nil, []string{one}, true, true, two},
		{"another has failed", unitwatch.UnitActive, unitwatch.UnitFailed, nil, []string{one}, true, false, two},
		{"another stops", unitwatch.UnitActive, unitwatch.UnitDeactivating, nil, []string{one}, true, false, ""},
		{"it stops, and another has failed", unitwatch.UnitDeactivating, unitwatch.UnitFailed, nil, []string{one}, true, false, two},
		{"it stops, and another waits to be restarted", unitwatch.UnitDeactivating, unitwatch.UnitWaiting, nil, []string{one}, true, true, two},
		{"it stops and is drained already", unitwatch.UnitDeactivating, unitwatch.UnitFailed, []string{one}, []string{one}, false, false, ""},
		{"another is drained", unitwatch.UnitActive, unitwatch.UnitActive, []string{two}, []string{one}, true, false, ""},
		{"it is drained already", unitwatch.UnitActive, unitwatch.UnitActivating, []string{one}, []string{one}, false, false, ""},
		{"the last of a family", unitwatch.UnitActive, unitwatch.UnitActive, nil, []string{six}, true, false, ""},
		{"the last of a view", unitwatch.UnitActive, unitwatch.UnitActive, nil, []string{view}, true, false, ""},
		{"another starts, and the view does not have it", unitwatch.UnitActive, unitwatch.UnitActivating, nil, []string{view}, true, false, ""},
		{"no backend", unitwatch.UnitActive, unitwatch.UnitActivating, nil, []string{"127.0.0.1:7"}, false, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
			units := running(1, 1)
			if tt.second != 0 {
				units = running(1, 2)
				units.List[1].State = tt.second
			}
			units.List[0].State = tt.first
			for _, a := range tt.drained {
				d.backends.operator[endpointOf("db", a)] = order{State: api.OrderDrain, Since: time.Now()}
			}
			src := sourceOf(t, toml).with(unitsOf(units, nil))
			if _, err := d.compile(src, &unitwatch.Snapshot{Tree: src.tree, Complete: true}); err != nil {
				t.Fatal(err)
			}
			d.running = src
			var all []lb.Endpoint
			for _, a := range tt.all {
				all = append(all, endpointOf("db", a))
			}
			left := d.leaves(all)
			if left.last != tt.last || left.coming != tt.coming {
				t.Errorf("the last ones %t, others about to come %t; want %t, %t", left.last, left.coming, tt.last, tt.coming)
			}
			var text []string
			for _, e := range left.others {
				text = append(text, e.Addr.String())
			}
			if got := strings.Join(text, " "); got != tt.others {
				t.Errorf("others that should work: %q, want %q", got, tt.others)
			}
		})
	}
}

// The VIP's own backends are no list of anybody's where each client has a for: whoever
// takes out one of these, that the view has too, leaves nobody with nothing.
func TestOrderOfWhatNobodyGets(t *testing.T) {
	src := parse(t, `[group.jobs]
slices = ["jobs.slice"]
[vip.db]
frontends = ["10.96.0.10:80"]
clients = ["jobs"]
backend = [{ address = "192.0.2.1:80" }, { address = "192.0.2.3:80" }]
[vip.db.for.jobs]
backend = [{ address = "192.0.2.1:80" }, { address = "192.0.2.2:80" }]
[vip.db.health]
initial = "up"
`)
	d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
	if _, err := d.compile(src, &unitwatch.Snapshot{Tree: src.tree, Complete: true}); err != nil {
		t.Fatal(err)
	}
	d.running = src
	one, two := endpointOf("db", "192.0.2.1:80"), endpointOf("db", "192.0.2.2:80")
	if left := d.leaves([]lb.Endpoint{one}); left.last || len(left.others) > 0 {
		t.Errorf("the last one: %t; others that should work: %v", left.last, left.others)
	}
	if !d.leaves([]lb.Endpoint{one, two}).last {
		t.Error("both of the view are not the last ones")
	}
}

// A backend that fails and is used all the same, by panic_threshold, is none that is
// left; and no more are taken out at once than may be out without such ones being used,
// while others are about to come.
func TestLeavesUnderPanic(t *testing.T) {
	const one, two, three = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"
	const up, down, unchecked = health.Up, health.Down, health.Unchecked
	for _, tt := range []struct {
		name         string
		threshold    int
		states       [3]health.State
		fresh        string // has just been made ready
		all          []string
		last, coming bool
		others       string
	}{
		{"one that works of three, two used although they fail", 50, [3]health.State{up, down, down}, "", []string{one}, true, false, two + " " + three},
		{"and one of these is about to come", 50, [3]health.State{up, down, down}, two, []string{one}, true, true, two + " " + three},
		{"one that fails and is used", 50, [3]health.State{up, down, down}, "", []string{two}, false, false, ""},
		{"all fail and are used", 50, [3]health.State{down, down, down}, "", []string{one, two, three}, false, false, ""},
		{"two of three work", 50, [3]health.State{up, up, down}, "", []string{one}, false, false, ""},
		{"two of three work, and one is about to", 50, [3]health.State{up, up, down}, three, []string{one}, false, true, ""},
		{"two of three work, and one is not checked yet", 50, [3]health.State{up, up, unchecked}, "", []string{one}, false, true, ""},
		{"two of three may be out", 67, [3]health.State{up, up, down}, three, []string{one}, false, false, ""},
		{"all may be out", 100, [3]health.State{up, up, unchecked}, "", []string{one}, false, false, ""},
		{"none may be out", 0, [3]health.State{up, up, unchecked}, "", []string{one}, false, true, ""},
		{"none may be out, and all work", 0, [3]health.State{up, up, up}, "", []string{one}, false, false, ""},
	} {
		src := parse(t, fmt.Sprintf("[vip.db]\nfrontends = [\"10.96.0.10:80\"]\nbackend = [{ address = %q }, { address = %q }, { address = %q }]\n[vip.db.health]\npanic_threshold = %d\n", one, two, three, tt.threshold))
		d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
		var targets []health.Target
		for i, addr := range []string{one, two, three} {
			targets = append(targets, health.Target{VIP: "db", Addr: endpointOf("db", addr).Addr, Assume: tt.states[i]})
		}
		d.backends.verdicts = verdictsOf(t, targets...)
		if tt.fresh != "" {
			d.backends.back[endpointOf("db", tt.fresh)] = time.Now()
		}
		desired, err := d.compile(src, &unitwatch.Snapshot{Tree: src.tree, Complete: true})
		if err != nil {
			t.Fatal(err)
		}
		d.running, d.desired = src, desired
		var all []lb.Endpoint
		for _, a := range tt.all {
			all = append(all, endpointOf("db", a))
		}
		left := d.leaves(all)
		var others []string
		for _, e := range left.others {
			others = append(others, e.Addr.String())
		}
		if got := strings.Join(others, " "); left.last != tt.last || left.coming != tt.coming || got != tt.others {
			t.Errorf("%s: the last ones %t, about to come %t, others %q; want %t, %t, %q", tt.name, left.last, left.coming, got, tt.last, tt.coming, tt.others)
		}
	}
}
