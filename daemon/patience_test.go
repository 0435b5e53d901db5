package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
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
	if out := <-waits.done; !api.IsBusy(out.err) || out.answer != nil {
		t.Errorf("not carried out: %+v", out)
	}
	if out := <-carried.done; out.err != nil || out.answer != carried.answer {
		t.Errorf("carried out: %+v", out)
	}
}

// When the time of an order is over that is looked at, and not some time later: its command
// is to hear why nothing was done.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackendStates()
		if b.patience() != nil {
			t.Error("no order waits, and one's time ends")
		}
		begun := time.Now()
		b.open = []*backendChange{{until: begun.Add(time.Hour)}, {until: begun.Add(time.Minute)}}
		if <-b.patience(); time.Since(begun) != time.Minute {
			t.Errorf("after %v", time.Since(begun))
		}
	})
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

// The last one of a VIP that takes connections: what becomes of an order about it, by
// what the other one does. many has units, web@1 that the order is about and web@2.
func TestOrderOfTheLast(t *testing.T) {
	for _, tt := range []struct {
		name          string
		first, second unitwatch.UnitState
		change        backendChange
		waits         bool // and, when its time is over:
		refused       bool
	}{
		{"another starts", unitwatch.UnitActive, unitwatch.UnitActivating, backendChange{}, true, true},
		{"another starts, all the same", unitwatch.UnitActive, unitwatch.UnitActivating, backendChange{force: true}, false, false},
		{"another has failed", unitwatch.UnitActive, unitwatch.UnitFailed, backendChange{}, false, true},
		{"another has failed, all the same", unitwatch.UnitActive, unitwatch.UnitFailed, backendChange{force: true}, false, false},
		{"there is another", unitwatch.UnitActive, unitwatch.UnitActive, backendChange{}, false, false},
		{"another stops", unitwatch.UnitActive, unitwatch.UnitDeactivating, backendChange{}, false, false},
		{"by its unit, which runs, another has failed", unitwatch.UnitActive, unitwatch.UnitFailed, backendChange{unit: "web@1.service"}, false, true},
		{"by its unit, which runs, another starts", unitwatch.UnitActive, unitwatch.UnitActivating, backendChange{unit: "web@1.service"}, true, true},
		{"in its ExecStop, another starts", unitwatch.UnitDeactivating, unitwatch.UnitActivating, backendChange{unit: "web@1.service"}, true, false},
		{"in its ExecStop, another has failed", unitwatch.UnitDeactivating, unitwatch.UnitFailed, backendChange{unit: "web@1.service"}, false, false},
		{"in its ExecStop, another runs", unitwatch.UnitDeactivating, unitwatch.UnitActive, backendChange{unit: "web@1.service"}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const addr = "127.0.0.1:1"
			dp := newMemoryPath(lbtest.DefaultLimits)
			d := bare(t, fdstoretest.New(t), dp)
			units := running(1, 2)
			units.List[0].State, units.List[1].State = tt.first, tt.second
			d.running, d.lockHeld = sourceOf(t, twoVIPs), true
			d.see(t.Context(), &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
			d.seeUnits(t.Context(), units)
			d.settle(t.Context())
			defer func() { d.backends.stateFile.Close() }()
			c := tt.change
			c.state, c.ctx, c.done, c.wait = api.OrderDrain, t.Context(), make(chan backendChanged, 1), time.Minute
			if c.unit == "" {
				c.vip, c.addr = "many", endpointOf("many", addr).Addr
			}
			d.watcher = unitwatch.New(unitwatch.Options{}) // which looks for no units: all has been said of them
			out := func() bool { return d.kernel.Verdict(endpointOf("many", addr)).Drain }
			d.change(t.Context(), &c)
			if waits := len(d.backends.open) > 0; waits != tt.waits {
				t.Fatalf("it waits: %t", waits)
			}
			if tt.waits {
				if out() {
					t.Error("it gets nothing new while it is waited for another")
				}
				if in := time.Until(c.until); in < c.wait/2 {
					t.Errorf("it waits for %v, and may for %v", in, c.wait)
				}
				c.until = time.Now()
				d.carryOut(t.Context())
			}
			r := <-c.done
			var e *api.Error
			if refused := errors.As(r.err, &e) && e.Code == api.Conflict; refused != tt.refused || r.err != nil && !refused {
				t.Fatalf("refused: %t, %v", refused, r.err)
			}
			if out() == tt.refused {
				t.Errorf("the kernel has it out: %t", out())
			}
			if tt.refused && (!strings.Contains(e.Text, "127.0.0.1:2 should be one, and is not") || !strings.Contains(e.Hint, "--force")) {
				t.Errorf("%s\n%s", e.Text, e.Hint)
			}
		})
	}
}

// A unit that stops is used while nothing else is and another starts, and no longer.
func TestStopsWhileAnotherStarts(t *testing.T) {
	const first, second = "127.0.0.1:1", "127.0.0.1:2"
	dp := newMemoryPath(lbtest.DefaultLimits)
	d := bare(t, fdstoretest.New(t), dp)
	d.running, d.lockHeld = sourceOf(t, twoVIPs), true
	d.see(t.Context(), &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
	is := func(addr string) bool { return !d.kernel.Verdict(endpointOf("many", addr)).Drain }
	for _, tt := range []struct {
		second, third unitwatch.UnitState
		used          bool
	}{
		{unitwatch.UnitActivating, unitwatch.UnitFailed, true},
		{unitwatch.UnitActive, unitwatch.UnitFailed, false},
		{unitwatch.UnitActivating, unitwatch.UnitActive, false},
		{unitwatch.UnitFailed, unitwatch.UnitFailed, false},
		{unitwatch.UnitDeactivating, unitwatch.UnitFailed, false},
	} {
		units := running(1, 3)
		units.List[0].State, units.List[1].State, units.List[2].State = unitwatch.UnitDeactivating, tt.second, tt.third
		d.seeUnits(t.Context(), units)
		d.settle(t.Context())
		if is(first) != tt.used {
			t.Errorf("the others are %v and %v: used: %t", tt.second, tt.third, is(first))
		}
		if looks := d.backends.due(time.Now().Add(spareInterval)); looks != tt.used {
			t.Errorf("the others are %v and %v: it is looked again before long: %t", tt.second, tt.third, looks)
		}
		if tt.second == unitwatch.UnitDeactivating && is(second) {
			t.Error("both stop, and one is used")
		}
	}
}

// Units that are all restarted at once, each with an ExecStop that drains it: they serve
// until their turn, one goes after the other, and each waits for the one before.
func TestRestartedAtOnce(t *testing.T) {
	for _, held := range []bool{false, true} { // the first one drains for some time
		d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
		d.running, d.lockHeld = sourceOf(t, twoVIPs), true
		d.watcher = unitwatch.New(unitwatch.Options{}) // which looks for no units: all has been said of them
		d.see(t.Context(), &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
		list := running(1, 2).List
		var used [2]bool
		stand := func(states ...unitwatch.UnitState) {
			t.Helper()
			for i, s := range states {
				list[i].State, list[i].StartJob = s, s == unitwatch.UnitDeactivating || list[i].Invocation == ""
			}
			d.seeUnits(t.Context(), &unitwatch.Units{Patterns: []string{"web@*.service"}, List: slices.Clone(list)})
			d.settle(t.Context())
			d.carryOut(t.Context())
			for i, addr := range []string{"127.0.0.1:1", "127.0.0.1:2"} {
				used[i] = !d.kernel.Verdict(endpointOf("many", addr)).Drain
			}
		}
		drain := func(unit string) *backendChange {
			c := &backendChange{unit: unit, state: api.OrderDrain, wait: time.Minute, ctx: t.Context(), done: make(chan backendChanged, 1)}
			d.change(t.Context(), c)
			return c
		}
		const active, stops, starts = unitwatch.UnitActive, unitwatch.UnitDeactivating, unitwatch.UnitActivating
		list[0].Invocation, list[1].Invocation = "1", "1"
		stand(active, active)
		var first *backendChange
		if held {
			stand(stops, active)
			first = drain("web@1.service")
		}
		stand(stops, stops)
		if used != [2]bool{!held, true} {
			t.Errorf("held: %t: both are told to stop: used %v", held, used)
		}
		if !held {
			first = drain("web@1.service")
		}
		second := drain("web@2.service")
		stand(stops, stops)
		if len(first.done) != 1 || len(second.done) != 0 || used != [2]bool{false, true} {
			t.Fatalf("held: %t: one is to go, the other to wait: %d, %d, used %v", held, len(first.done), len(second.done), used)
		}
		list[0].Invocation = "" // it has stopped, and is not started yet
		stand(starts, stops)
		list[0].Invocation = "2"
		stand(starts, stops)
		if len(second.done) != 0 || used != [2]bool{false, true} {
			t.Errorf("held: %t: the first one starts: %d, used %v", held, len(second.done), used)
		}
		stand(active, stops)
		if len(second.done) != 1 || used != [2]bool{true, false} {
			t.Errorf("held: %t: the first one is back: %d, used %v", held, len(second.done), used)
		}
		for _, c := range []*backendChange{first, second} {
			if r := <-c.done; r.err != nil {
				t.Error(r.err)
			}
		}
		d.backends.stateFile.Close()
	}
}

// One that stops for good waits for another that is restarted, which does not wait for it.
func TestStopsWhileAnotherIsRestarted(t *testing.T) {
	d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
	d.running, d.lockHeld = sourceOf(t, twoVIPs), true
	d.watcher = unitwatch.New(unitwatch.Options{})
	d.see(t.Context(), &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
	units := running(1, 2)
	units.List[0].State, units.List[1].State, units.List[1].StartJob = unitwatch.UnitDeactivating, unitwatch.UnitDeactivating, true
	d.seeUnits(t.Context(), units)
	d.settle(t.Context())
	defer func() { d.backends.stateFile.Close() }()
	var done [2]chan backendChanged
	for i := range done {
		done[i] = make(chan backendChanged, 1)
		d.change(t.Context(), &backendChange{unit: units.List[i].Name, state: api.OrderDrain, wait: time.Minute, ctx: t.Context(), done: done[i]})
	}
	if len(done[0]) != 0 || len(done[1]) != 1 {
		t.Errorf("done: %d, %d", len(done[0]), len(done[1]))
	}
	back := running(1, 2)
	back.List[0].State = unitwatch.UnitDeactivating
	d.seeUnits(t.Context(), back)
	d.settle(t.Context())
	d.carryOut(t.Context())
	if len(done[0]) != 1 {
		t.Error("it is waited for, though it is back")
	}
}

// Two that are restarted at once, though by panic_threshold only one may be out: one goes,
// and the other waits for it.
func TestRestartedAtOnceUnderPanic(t *testing.T) {
	d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
	d.running, d.lockHeld = sourceOf(t, fmt.Sprintf(underPanic, 34)), true
	d.watcher = unitwatch.New(unitwatch.Options{})
	d.backends.verdicts = verdictsOfUnits(t, health.Up, health.Up, health.Up)
	d.see(t.Context(), &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
	units := running(1, 3)
	for i := range units.List[:2] {
		units.List[i].State, units.List[i].StartJob = unitwatch.UnitDeactivating, true
	}
	d.seeUnits(t.Context(), units)
	d.settle(t.Context())
	defer func() { d.backends.stateFile.Close() }()
	done := make(chan backendChanged, 2)
	for _, u := range units.List[:2] {
		d.change(t.Context(), &backendChange{unit: u.Name, state: api.OrderDrain, wait: time.Minute, ctx: t.Context(), done: done})
		d.settle(t.Context())
	}
	for range 3 {
		d.carryOut(t.Context())
	}
	if len(done) != 1 {
		t.Errorf("%d of two are taken out", len(done))
	}
}

// An order that waits is not done when another about the same backend comes.
func TestOrderAfterAnother(t *testing.T) {
	dp := newMemoryPath(lbtest.DefaultLimits)
	d := bare(t, fdstoretest.New(t), dp)
	units := running(1, 2)
	units.List[1].State = unitwatch.UnitActivating
	d.running, d.lockHeld = sourceOf(t, twoVIPs), true
	d.see(t.Context(), &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
	d.seeUnits(t.Context(), units)
	say := func(state string, wait time.Duration) *backendChange {
		c := &backendChange{wait: wait, vip: "many", addr: endpointOf("many", "127.0.0.1:1").Addr, state: state, ctx: t.Context(), done: make(chan backendChanged, 1)}
		d.change(t.Context(), c)
		return c
	}
	first, second := say(api.OrderMaint, 0), say(api.OrderReady, 100*time.Millisecond)
	var e *api.Error
	if r := <-first.done; !errors.As(r.err, &e) || !strings.Contains(e.Text, "another order came") {
		t.Errorf("the first: %+v", r)
	}
	if in := time.Until(second.until); in > second.wait {
		t.Errorf("the second waits for its checks for %v, and may for %v", in, second.wait)
	}
	second.until = time.Now() // nothing is checked here, and no loop looks after it
	d.carryOut(t.Context())
	if r := <-second.done; r.err != nil {
		t.Errorf("the second: %+v", r)
	}
	if d.kernel.Verdict(endpointOf("many", "127.0.0.1:1")).Down {
		t.Error("it is out")
	}
}
