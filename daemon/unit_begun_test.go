package daemon

import (
	"testing"
	"time"

	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
)

// What checks found of a backend holds for the run of its unit: of the next one nothing
// is known, here and in the process after this one. Another answer about the same run
// begins none.
func TestUnitsThatBegin(t *testing.T) {
	const active, reloading, activating, deactivating, failed = unitwatch.UnitActive, unitwatch.UnitReloading, unitwatch.UnitActivating, unitwatch.UnitDeactivating, unitwatch.UnitFailed
	units := func(list ...unitwatch.Unit) *unitwatch.Units {
		return &unitwatch.Units{Patterns: []string{"web@*.service", "blue@*.service"}, List: list}
	}
	unit := func(state unitwatch.UnitState, run string) *unitwatch.Units {
		return units(unitwatch.Unit{Name: "web@1.service", State: state, Invocation: run})
	}
	blue := units(unitwatch.Unit{Name: "blue@1.service", State: active, Invocation: "c"})
	e := endpointOf("db", "127.0.0.1:1")
	for _, tt := range []struct {
		name         string
		health       string
		before, next *unitwatch.Units
		want         bool
	}{
		{"nothing was known", "", nil, unit(active, "a"), false},
		{"others were asked for", "", &unitwatch.Units{Patterns: []string{"x.service"}}, unit(active, "a"), false},
		{"it goes on", "", unit(active, "a"), unit(active, "a"), false},
		{"it has reloaded", "", unit(reloading, "a"), unit(active, "a"), false},
		{"it reloads", "", unit(active, "a"), unit(reloading, "a"), false},
		{"its run was not known", "", unit(active, ""), unit(active, "a"), false},
		{"its run is not known", "", unit(active, "a"), unit(active, ""), false},
		{"restarted, too quick to see", "", unit(active, "a"), unit(active, "b"), true},
		{"restarted, and reloads", "", unit(active, "a"), unit(reloading, "b"), true},
		{"restarted, and its stop was seen", "", unit(deactivating, "a"), unit(active, "b"), true},
		{"restarted, its runs are not known", "", unit(deactivating, ""), unit(active, ""), true},
		{"started", "", units(), unit(active, "a"), true},
		{"start is over", "", unit(activating, "a"), unit(active, "a"), true},
		{"started after a failure", "", unit(failed, ""), unit(active, "b"), true},
		{"it stops", "", unit(active, "a"), unit(deactivating, "a"), false},
		{"another unit", "", unit(active, "a"), blue, true},
		{"up unless checks say otherwise", "initial = \"up\"\n", unit(active, "a"), unit(active, "b"), false},
		{"certificates cannot be read", "type = \"https\"\nca_file = \"/nowhere.pem\"\n", unit(active, "a"), unit(active, "b"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			toml := unitVIP + "[[vip.db.backend]]\nunit = \"blue@*.service\"\naddress = \"127.0.0.1:%i\"\n[vip.db.health]\n" + tt.health
			d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
			if tt.before != nil {
				d.units = unitsOf(tt.before, nil)
			}
			d.running = sourceOf(t, toml).with(d.units)
			up := verdictsOf(t, health.Target{VIP: e.VIP, Addr: e.Addr, Assume: health.Up})
			b := d.backends
			b.verdicts = up
			b.known[e] = health.Verdict{State: health.Up}

			d.seeUnits(t.Context(), tt.next)
			if got := b.runtime(d.running, time.Now()).Verdicts[e].Down; got != tt.want {
				t.Errorf("down %t, want %t", got, tt.want)
			}
			if state := b.states()[e]; (state == health.Unchecked) != tt.want {
				t.Errorf("its check says %s", state)
			}
			if _, known := b.known[e]; known == tt.want {
				t.Errorf("still known %t, want %t", known, !tt.want)
			}
			if err := b.seal(); err != nil {
				t.Fatal(err)
			}
			defer b.stateFile.Close()
			heir := newBackendStates()
			if err := heir.restore(b.wanted()); err != nil {
				t.Fatal(err)
			}
			if _, known := heir.known[e]; known == tt.want {
				t.Errorf("the next process knows it: %t, want %t", known, !tt.want)
			}
			// The answer to the list that was given then.
			d.judge(t.Context(), up)
			if up.Set != b.set {
				t.Fatalf("list %d, not %d", b.set, up.Set)
			}
			if got := b.runtime(d.running, time.Now()).Verdicts[e]; got.Down {
				t.Errorf("checked: %+v", got)
			}
		})
	}
}
