package daemon

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
)

// An order that the process before has stored is done when the kernel has it, not
// when it is found to be there already; and none is taken while what that process
// left serves on.
func TestOrderSaidBefore(t *testing.T) {
	dp := newMemoryPath(lbtest.DefaultLimits)
	d := bare(t, fdstoretest.New(t), dp)
	d.configPath = filepath.Join(t.TempDir(), "slicelb.toml")
	if err := os.WriteFile(d.configPath, []byte(oneVIP), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer d.tasks.Wait()
	defer dp.Close()
	defer cancel()
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	d.inherited = true
	if d.takesOrders() {
		t.Error("an order is taken before the kernel is up to date")
	}
	d.see(ctx, &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
	defer d.state.Close()
	if !d.ready || !d.takesOrders() {
		t.Fatalf("ready: %t, %v", d.ready, d.applyErr)
	}

	addr := netip.MustParseAddrPort("192.0.2.1:80")
	d.backends.operator = map[lb.Endpoint]order{{VIP: "db", Addr: addr}: {State: api.OrderDrain}}
	d.backends.count()
	d.applied = false // nothing of that is in the kernel yet
	answer, err := d.order(ctx, &backendChange{vip: "db", addr: addr, state: api.OrderDrain})
	if err != nil || answer.Before != api.OrderDrain {
		t.Fatalf("%+v, %v", answer, err)
	}
	defer d.backends.stateFile.Close()
	dump, err := dp.Dump()
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range dump.BackendCells {
		if c.State == bpf.BackendActive {
			t.Errorf("backend %d is active", i)
		}
	}
}

// What was said of a backend itself outlives what is said of its unit.
func TestOrdersOfBothKinds(t *testing.T) {
	const unit = "web@1.service"
	e := endpointOf("db", "127.0.0.1:1")
	d := &daemon{backends: newBackendStates(), running: parse(t, unitVIP).with(unitsAre(discover.Unit{Name: unit, State: discover.Active, Run: "a"}))}
	say := func(state string, byUnit bool) {
		c := &backendChange{state: state}
		if byUnit {
			c.unit = unit
		}
		if next, _, _ := d.ordered(c, []lb.Endpoint{e}); next != nil {
			d.backends.operator = next
		}
	}
	for _, tt := range []struct {
		name   string
		said   []string // "unit drain" is about the unit
		want   string
		byUnit bool
	}{
		{"drained, and its unit stops", []string{"drain", "unit drain"}, "drain", false},
		{"in maintenance, and its unit stops", []string{"maint", "unit drain"}, "maint", false},
		{"drained, and its unit in maintenance", []string{"drain", "unit maint"}, "maint", false},
		{"its unit, and then itself", []string{"unit drain", "drain"}, "drain", false},
		{"its unit", []string{"unit maint", "unit drain"}, "drain", true},
		{"its unit is ready", []string{"maint", "unit ready"}, "", false},
		{"ready", []string{"unit drain", "ready"}, "", false},
	} {
		d.backends.operator = map[lb.Endpoint]order{}
		for _, s := range tt.said {
			state, byUnit := strings.CutPrefix(s, "unit ")
			say(state, byUnit)
		}
		if o := d.backends.operator[e]; o.State != tt.want || o.ByUnit != tt.byUnit {
			t.Errorf("%s: %+v, want %s, by unit: %t", tt.name, o, tt.want, tt.byUnit)
		}
	}
}

// What was said of a backend whose unit is stopped can be taken back.
func TestOrderOfStoppedUnit(t *testing.T) {
	e := endpointOf("db", "127.0.0.1:1")
	d := &daemon{backends: newBackendStates(), running: parse(t, unitVIP).with(unitsAre())}
	c := &backendChange{vip: e.VIP, addr: e.Addr, state: api.OrderReady}
	if _, err := d.meant(c); err == nil {
		t.Error("nothing was said of it, and it is not there")
	}
	d.backends.operator[e] = order{State: api.OrderDrain, Unit: "web@1.service"}
	all, err := d.meant(c)
	if err != nil {
		t.Fatal(err)
	}
	if next, _, _ := d.ordered(&backendChange{state: api.OrderMaint}, all); next[e].Unit != "web@1.service" {
		t.Errorf("whose unit it is is forgotten: %+v", next[e])
	}
	if next, _, _ := d.ordered(c, all); len(next) != 0 {
		t.Errorf("%+v", next)
	}
}
