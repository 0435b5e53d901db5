package daemon

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch"
)

const unitVIP = `[vip.db]
frontends = ["10.96.0.10:80"]
drain_timeout = "5m"
[[vip.db.backend]]
unit = "web@*.service"
address = "127.0.0.1:%i"
`

func unitsAre(list ...discover.Unit) *discover.Units {
	return &discover.Units{Patterns: []string{"web@*.service"}, List: list}
}

// What a unit's state is for a backend, beside an order and a check.
func TestUnitVerdicts(t *testing.T) {
	e := endpointOf("db", "127.0.0.1:1")
	begun := time.Now()
	for _, tt := range []struct {
		state   discover.State
		health  bool
		order   order
		now     time.Duration
		want    lb.Verdict
		targets int
	}{
		{discover.Active, false, order{}, 0, lb.Verdict{}, 0},
		{discover.Reloading, false, order{}, 0, lb.Verdict{}, 0},
		{discover.Activating, false, order{}, 0, lb.Verdict{Drain: true}, 0},
		{discover.Deactivating, false, order{}, 0, lb.Verdict{Drain: true}, 0},
		{discover.Failed, false, order{}, 0, lb.Verdict{Down: true}, 0},
		{discover.Waiting, false, order{}, 0, lb.Verdict{Down: true}, 0},
		{discover.Active, true, order{}, 0, lb.Verdict{Down: true}, 1}, // not checked yet
		{discover.Reloading, true, order{}, 0, lb.Verdict{Down: true}, 1},
		{discover.Activating, true, order{}, 0, lb.Verdict{Down: true, Drain: true}, 0},
		{discover.Deactivating, true, order{}, 0, lb.Verdict{Down: true, Drain: true}, 1},
		{discover.Failed, true, order{}, 0, lb.Verdict{Down: true}, 0},
		{discover.Waiting, true, order{}, 0, lb.Verdict{Down: true}, 0},
		{discover.Active, false, order{State: api.OrderDrain, Since: begun}, 0, lb.Verdict{Drain: true}, 0},
		{discover.Active, false, order{State: api.OrderDrain, Since: begun}, 4 * time.Minute, lb.Verdict{Drain: true}, 0},
		{discover.Active, false, order{State: api.OrderDrain, Since: begun}, 5 * time.Minute, lb.Verdict{Down: true}, 0},
		{discover.Active, false, order{State: api.OrderMaint, Since: begun}, 0, lb.Verdict{Down: true}, 0},
		{discover.Failed, false, order{State: api.OrderDrain, Since: begun}, 0, lb.Verdict{Down: true, Drain: true}, 0},
	} {
		toml := unitVIP
		if tt.health {
			toml += "[vip.db.health]\n"
		}
		src := parse(t, toml).with(unitsAre(discover.Unit{Name: "web@1.service", State: tt.state}))
		b := newBackendStates()
		if tt.order.State != "" {
			b.operator[e] = tt.order
		}
		name := fmt.Sprintf("%v, health %v, order %q after %v", tt.state, tt.health, tt.order.State, tt.now)
		if got := b.runtime(src, begun.Add(tt.now)).Verdicts[e]; got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
		if got := len(b.targets(src, nil)); got != tt.targets {
			t.Errorf("%s: %d targets, want %d", name, got, tt.targets)
		}
		due := begun.Add(5 * time.Minute)
		if running := tt.order.State == api.OrderDrain && tt.now < 5*time.Minute; b.due(due) != running {
			t.Errorf("%s: looked at again at %v", name, b.step)
		}
	}
}

// An order about a unit ends with the unit's run, one about an address does not;
// neither is forgotten while the unit is away.
func TestOrdersAndRuns(t *testing.T) {
	one, two := endpointOf("db", "127.0.0.1:1"), endpointOf("db", "127.0.0.1:2")
	unit := func(port, run string, state discover.State) discover.Unit {
		return discover.Unit{Name: "web@" + port + ".service", State: state, Run: run}
	}
	for _, tt := range []struct {
		name string
		run  string // of the order
		next []discover.Unit
		want bool
	}{
		{"it runs on", "a", []discover.Unit{unit("1", "a", discover.Active)}, true},
		{"it stops", "a", []discover.Unit{unit("1", "a", discover.Deactivating)}, true},
		{"it is gone", "a", nil, false},
		{"it failed", "a", []discover.Unit{unit("1", "a", discover.Failed)}, false},
		{"it ended by itself", "a", []discover.Unit{unit("1", "", discover.Waiting)}, false},
		{"it was started again", "a", []discover.Unit{unit("1", "b", discover.Active)}, false},
		{"its run is not known", "a", []discover.Unit{unit("1", "", discover.Active)}, true},
		{"the order's run was not known", "", []discover.Unit{unit("1", "a", discover.Active)}, true},
	} {
		b := newBackendStates()
		b.operator[one] = order{State: api.OrderDrain, Unit: "web@1.service", Run: tt.run, ByUnit: true}
		b.operator[two] = order{State: api.OrderDrain, Unit: "web@2.service", Run: "x"}
		b.endRuns(&daemon{log: slog.New(slog.DiscardHandler)}, unitsAre(tt.next...))
		o, there := b.operator[one]
		if there != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, there, tt.want)
		}
		if _, there := b.operator[two]; !there {
			t.Errorf("%s: the order about an address is gone", tt.name)
		}
		if there && tt.run == "" && o.Run != "a" {
			t.Errorf("%s: the run is not learned: %+v", tt.name, o)
		}
	}

	b := newBackendStates()
	b.operator[one] = order{State: api.OrderDrain, Unit: "web@1.service"}
	b.operator[two] = order{State: api.OrderDrain}
	src := parse(t, unitVIP)
	if gone := b.forget(src.with(unitsAre())); len(gone) != 1 || b.operator[one].State == "" {
		t.Errorf("forgotten: %q", gone)
	}
	if gone := b.forget(parse(t, oneVIP)); len(gone) != 1 {
		t.Errorf("forgotten: %q", gone)
	}
}

// Units that a process knew are what the next one goes by.
func TestUnitsAreStored(t *testing.T) {
	since := time.Now().Add(-time.Hour)
	b := newBackendStates()
	b.units = unitsAre(discover.Unit{Name: "web@1.service", State: discover.Failed, Since: since, Run: "a"},
		discover.Unit{Name: "web@2.service", State: discover.Active, Since: since, Run: "b"})
	if err := b.seal(); err != nil {
		t.Fatal(err)
	}
	defer b.stateFile.Close()
	c := newBackendStates()
	if err := c.restore(b.wanted()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b.units.Patterns, c.units.Patterns) || !slices.EqualFunc(b.units.List, c.units.List, func(a, b discover.Unit) bool {
		return a.Name == b.Name && a.State == b.State && a.Since.Sub(b.Since).Abs() < time.Second && a.Run == b.Run
	}) {
		t.Errorf("%+v, want %+v", c.units, b.units)
	}
	// What goes on in the same way has done so since then.
	next := unitsOf(&unitwatch.Units{List: []unitwatch.Unit{
		{Name: "web@1.service", State: unitwatch.UnitActive, Since: time.Now(), Invocation: "a"},
		{Name: "web@2.service", State: unitwatch.UnitActive, Since: time.Now(), Invocation: "b"},
	}}, c.units)
	if goes, on := time.Since(next.List[0].Since), time.Since(next.List[1].Since); goes > time.Minute || on < 59*time.Minute {
		t.Errorf("%+v", next.List)
	}
}

// A wish about a unit is about every backend that it is.
func TestMeantByUnit(t *testing.T) {
	toml := unitVIP + "[vip.other]\nfrontends = [\"10.96.0.11:80\"]\n[[vip.other.backend]]\nunit = \"web@1.service\"\naddress = \"127.0.0.1:%i\"\n"
	d := &daemon{running: parse(t, toml).with(unitsAre(discover.Unit{Name: "web@1.service", State: discover.Active}))}
	for _, tt := range []struct {
		unit string
		want string
	}{
		{"web@1.service", "db 127.0.0.1:1, other 127.0.0.1:1"}, {"web@2.service", ""}, {"web@*.service", `unit "web@*.service": want the name of one unit`}, {"x.service", `no backend is the unit "x.service"`},
	} {
		all, err := d.meant(&backendChange{unit: tt.unit})
		var got []string
		for _, e := range all {
			got = append(got, e.VIP+" "+e.Addr.String())
		}
		if err != nil {
			got = append(got, err.Error())
		}
		if text := strings.Join(got, ", "); text != tt.want {
			t.Errorf("%s: %s, want %s", tt.unit, text, tt.want)
		}
	}
	c := &counted{source: d.running}
	v := c.vipOf(&d.running.cfg.VIPs[0])
	if len(v.Units) != 1 || v.Units[0] != (api.Unit{Unit: "web@*.service", Address: "127.0.0.1:%i", Weight: 1, Running: 1, Origin: v.Units[0].Origin}) {
		t.Errorf("%+v", v.Units)
	}
	if v.Affinity != "0s" || v.DrainTimeout != d.running.cfg.VIPs[0].DrainTimeout.String() || v.RejectUnknownPorts {
		t.Errorf("affinity %q, drain_timeout %q, reject_unknown_ports %t", v.Affinity, v.DrainTimeout, v.RejectUnknownPorts)
	}
	if b := v.Backends[0]; b.Unit != "web@1.service" || b.UnitState != "active" || b.Reason != "" {
		t.Errorf("%+v", b)
	}
}

// A unit that a closer name decides over is counted for that name alone, and cannot
// come back as what a wider one would make of it.
func TestClosestName(t *testing.T) {
	toml := unitVIP + "[[vip.db.backend]]\nunit = \"web@1.service\"\naddress = \"127.0.0.1:8001\"\nweight = 3\n"
	src := parse(t, toml)
	v := &src.cfg.VIPs[0]
	for addr, want := range map[string]bool{"127.0.0.1:8001": true, "127.0.0.1:1": false} {
		if got := mayReturn(v, endpointOf("db", addr), order{Unit: "web@1.service"}); got != want {
			t.Errorf("%s may return: %v", addr, got)
		}
	}
	src = src.with(unitsAre(discover.Unit{Name: "web@1.service", State: discover.Active}, discover.Unit{Name: "web@2.service", State: discover.Active}))
	shown := (&counted{source: src}).vipOf(&src.cfg.VIPs[0])
	if len(shown.Units) != 2 || shown.Units[0].Running != 1 || shown.Units[1].Running != 1 {
		t.Errorf("%+v", shown.Units)
	}
	if len(shown.Backends) != 2 || shown.Backends[0].Unit != "web@2.service" || shown.Backends[1].Weight != 3 {
		t.Errorf("%+v", shown.Backends)
	}
}
