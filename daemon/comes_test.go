package daemon

import (
	"fmt"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
)

// Which backend is about to be in use, and of which only the unit, that stops, keeps it
// from that.
func TestComesAndStops(t *testing.T) {
	const unchecked = `[vip.db]
frontends = ["10.96.0.10:80"]
[[vip.db.backend]]
unit = "web@*.service"
address = "127.0.0.1:%i"
`
	const checked = unchecked + "[vip.db.health]\n"
	const unknown = health.State(255)
	now := time.Now()
	old := now.Add(-2 * settles)
	e := endpointOf("db", "127.0.0.1:1")
	for _, tt := range []struct {
		name         string
		toml         string
		state        discover.State
		since        time.Time
		check        health.State
		back         time.Time
		order        string
		comes, stops bool
	}{
		{"it runs", unchecked, discover.Active, old, unknown, time.Time{}, "", true, false},
		{"it starts", unchecked, discover.Activating, now, unknown, time.Time{}, "", true, false},
		{"it waits to be restarted", checked, discover.Waiting, old, health.Down, time.Time{}, "", true, false},
		{"it starts, and is drained", unchecked, discover.Activating, now, unknown, time.Time{}, api.OrderDrain, false, false},
		{"it has failed", unchecked, discover.Failed, now, unknown, now, "", false, false},
		{"it stops", unchecked, discover.Deactivating, now, unknown, time.Time{}, "", false, true},
		{"it stops, and is drained", unchecked, discover.Deactivating, now, unknown, time.Time{}, api.OrderDrain, false, false},
		{"it stops, and answers", checked, discover.Deactivating, now, health.Up, time.Time{}, "", false, true},
		{"it stops, and does not answer", checked, discover.Deactivating, now, health.Down, time.Time{}, "", false, false},
		{"it stops, and no check has ended", checked, discover.Deactivating, now, health.Unchecked, time.Time{}, "", false, false},
		{"nothing is known of it", checked, discover.Active, old, unknown, time.Time{}, "", true, false},
		{"no check has ended", checked, discover.Active, old, health.Unchecked, time.Time{}, "", true, false},
		{"it answers", checked, discover.Reloading, old, health.Up, time.Time{}, "", true, false},
		{"it has not answered for long", checked, discover.Active, old, health.Down, time.Time{}, "", false, false},
		{"it does not answer, and was started a moment ago", checked, discover.Active, now, health.Down, time.Time{}, "", true, false},
		{"it does not answer, and was made ready a moment ago", checked, discover.Active, old, health.Down, now, "", true, false},
		{"it does not answer, and was made ready long ago", checked, discover.Active, old, health.Down, old, "", false, false},
	} {
		src := sourceOf(t, tt.toml).with(unitsAre(discover.Unit{Name: "web@1.service", State: tt.state, Since: tt.since}))
		b := newBackendStates()
		states := map[lb.Endpoint]health.State{}
		if tt.check != unknown {
			states[e] = tt.check
		}
		if !tt.back.IsZero() {
			b.back[e] = tt.back
		}
		if tt.order != "" {
			b.operator[e] = order{State: tt.order}
		}
		if got := b.comes(src, e, states); got != tt.comes {
			t.Errorf("%s: it comes: %t", tt.name, got)
		}
		if got := b.stops(src, e, states); got != tt.stops {
			t.Errorf("%s: it stops: %t", tt.name, got)
		}
	}
}

const underPanic = `[vip.db]
frontends = ["10.96.0.10:80"]
[[vip.db.backend]]
unit = "web@*.service"
address = "127.0.0.1:%%i"
[vip.db.health]
panic_threshold = %d
`

// verdictsOfUnits are those of the backends of underPanic.
func verdictsOfUnits(t *testing.T, states ...health.State) *health.Verdicts {
	t.Helper()
	var targets []health.Target
	for i, state := range states {
		targets = append(targets, health.Target{VIP: "db", Addr: endpointOf("db", fmt.Sprintf("127.0.0.1:%d", i+1)).Addr, Assume: state})
	}
	return verdictsOf(t, targets...)
}

// A unit that stops is used while others are that fail, by panic_threshold, and one of
// these is about to work.
func TestSpareUnderPanic(t *testing.T) {
	for _, tt := range []struct {
		threshold int
		fresh     bool // the one that fails
		spared    bool
	}{{34, true, true}, {34, false, false}, {50, true, false}, {100, true, false}} {
		now := time.Now()
		since := now.Add(-2 * settles)
		if tt.fresh {
			since = now
		}
		src := sourceOf(t, fmt.Sprintf(underPanic, tt.threshold)).with(unitsAre(
			discover.Unit{Name: "web@1.service", State: discover.Active, Since: since},
			discover.Unit{Name: "web@2.service", State: discover.Deactivating, Since: now},
			discover.Unit{Name: "web@3.service", State: discover.Active, Since: now.Add(-2 * settles)},
		))
		b := newBackendStates()
		b.verdicts = verdictsOfUnits(t, health.Down, health.Up, health.Up)
		if spared := !b.runtime(src, now).Verdicts[endpointOf("db", "127.0.0.1:2")].Drain; spared != tt.spared {
			t.Errorf("%+v: spared: %t", tt, spared)
		}
	}
}
