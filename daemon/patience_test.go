package daemon

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
)

// A daemon that stops calls no order done that it has not carried out.
func TestStopAnswersOpenOrders(t *testing.T) {
	waits := &backendChange{state: api.OrderDrain, done: make(chan backendChanged, 1)}
	carried := &backendChange{state: api.OrderReady, done: make(chan backendChanged, 1), answer: &api.BackendChanged{Writes: 1}}
	b := newBackendStates()
	b.open = []*backendChange{waits, carried}
	b.giveUp()
	if out := <-waits.done; out.err == nil || out.answer != nil {
		t.Errorf("not carried out: %+v", out)
	}
	if out := <-carried.done; out.err != nil || out.answer != carried.answer {
		t.Errorf("carried out: %+v", out)
	}
}

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
		name         string
		second       unitwatch.UnitState // of web@2; 0: there is none
		drained      []string            // before
		all          []string
		last, coming bool
	}{
		{"the only one", 0, nil, []string{one}, true, false},
		{"one of two", unitwatch.UnitActive, nil, []string{one}, false, false},
		{"both", unitwatch.UnitActive, nil, []string{one, two}, true, false},
		{"another starts", unitwatch.UnitActivating, nil, []string{one}, true, true},
		{"another starts, and is meant too", unitwatch.UnitActivating, nil, []string{one, two}, true, false},
		{"another waits to be restarted", unitwatch.UnitWaiting, nil, []string{one}, true, true},
		{"another has failed", unitwatch.UnitFailed, nil, []string{one}, true, false},
		{"another is drained", unitwatch.UnitActive, []string{two}, []string{one}, true, false},
		{"it is drained already", unitwatch.UnitActivating, []string{one}, []string{one}, false, false},
		{"the last of a family", unitwatch.UnitActive, nil, []string{six}, true, false},
		{"the last of a view", unitwatch.UnitActive, nil, []string{view}, true, false},
		{"another starts, and the view does not have it", unitwatch.UnitActivating, nil, []string{view}, true, false},
		{"no backend", unitwatch.UnitActivating, nil, []string{"127.0.0.1:7"}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
			units := running(1, 1)
			if tt.second != 0 {
				units = running(1, 2)
				units.List[1].State = tt.second
			}
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
			if last, coming := d.leaves(all); last != tt.last || coming != tt.coming {
				t.Errorf("the last ones %t, others about to come %t; want %t, %t", last, coming, tt.last, tt.coming)
			}
		})
	}
}

// An order whose command was interrupted, or whose time was over, while it waited is
// not carried out when what it waited for has come.
func TestOrderOfOneWhoHasGone(t *testing.T) {
	dp := newMemoryPath(lbtest.DefaultLimits)
	d := bare(t, fdstoretest.New(t), dp)
	d.running, d.lockHeld = sourceOf(t, twoVIPs).with(unitsOf(running(1, 1), nil)), true
	d.see(t.Context(), &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
	units := running(1, 2)
	units.List[1].State = unitwatch.UnitActivating
	d.seeUnits(t.Context(), units)

	asks, goes := context.WithCancel(t.Context())
	answered := make(chan error, 1)
	go func() {
		_, err := answers{d}.SetBackend(asks, api.BackendChange{VIP: "many", Address: "127.0.0.1:1", State: api.OrderMaint})
		answered <- err
	}()
	d.change(t.Context(), <-d.backends.changes)
	if len(d.backends.open) != 1 {
		t.Fatal("it does not wait for the unit that starts")
	}
	goes()
	d.seeUnits(t.Context(), running(1, 2))
	d.settle(t.Context())
	d.carryOut(t.Context())
	var e *api.Error
	if err := <-answered; !errors.As(err, &e) || e.Code != api.Timeout {
		t.Errorf("answered: %v", err)
	}
	if len(d.backends.operator) != 0 || d.kernel.Verdict(endpointOf("many", "127.0.0.1:1")).Down {
		t.Errorf("carried out all the same: %+v", d.backends.operator)
	}
}
