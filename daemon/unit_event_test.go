package daemon

import (
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
)

var eventLine = regexp.MustCompile(`event=(backend-\S+) vip=(\S+) backend=(\S+) reason="([^"]*)"`)

// eventsIn are the events of backends in a log.
func eventsIn(log string) []string {
	var out []string
	for _, m := range eventLine.FindAllStringSubmatch(log, -1) {
		out = append(out, strings.Join(m[1:], " "))
	}
	return out
}

// A backend that comes or goes with its unit is an event of its VIP's, with the
// reason, once: not at the start, where nothing has changed, nor again when a unit that
// stops is gone.
func TestUnitEvents(t *testing.T) {
	d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
	var log syncBuffer
	d.log = slog.New(slog.NewTextHandler(&log, nil))
	d.running = sourceOf(t, unitVIP)
	d.snap = &unitwatch.Snapshot{Tree: d.running.tree, Complete: true}
	said := 0
	for _, step := range []struct {
		units string // name and state of each
		want  []string
	}{
		{"1 active", nil},
		{"1 active, 2 activating", nil},
		{"1 active, 2 active", []string{"backend-up db 127.0.0.1:2 unit web@2.service is active"}},
		{"1 reloading, 2 active", nil},
		{"1 failed, 2 deactivating", []string{
			"backend-down db 127.0.0.1:1 unit web@1.service has failed", "backend-down db 127.0.0.1:2 unit web@2.service is stopping",
		}},
		{"1 failed", nil},
		{"1 active", []string{"backend-up db 127.0.0.1:1 unit web@1.service is active"}},
		{"", []string{"backend-down db 127.0.0.1:1 unit web@1.service is inactive"}},
	} {
		u := &unitwatch.Units{Patterns: []string{"web@*.service"}}
		for _, text := range strings.Split(step.units, ", ") {
			var name, state string
			if _, err := fmt.Sscan(text, &name, &state); err != nil {
				continue // none
			}
			u.List = append(u.List, unitwatch.Unit{Name: "web@" + name + ".service", State: stateNamed(t, state)})
		}
		d.seeUnits(t.Context(), u)
		got := eventsIn(log.String())[said:]
		said += len(got)
		if !slices.Equal(got, step.want) {
			t.Errorf("%q: events %q, want %q", step.units, got, step.want)
		}
	}
}

// Of many that come at once the first are told by name, the others by their number.
func TestManyUnitEvents(t *testing.T) {
	d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
	var log syncBuffer
	d.log = slog.New(slog.NewTextHandler(&log, nil))
	d.running = sourceOf(t, twoVIPs)
	d.snap = &unitwatch.Snapshot{Tree: d.running.tree, Complete: true}
	d.seeUnits(t.Context(), running(1001, 1002))
	d.seeUnits(t.Context(), running(1001, 1003+maxLogged))
	text := log.String()
	got := eventsIn(text)
	if len(got) != maxLogged || !slices.IsSorted(got) || !strings.HasPrefix(got[0], "backend-up many 127.0.0.1:1003 ") {
		t.Errorf("events %q", got)
	}
	if !strings.Contains(text, `msg="more backends have come or gone with their units" number=1`) {
		t.Errorf("the others are not told:\n%s", text)
	}
}

func stateNamed(t *testing.T, name string) unitwatch.UnitState {
	t.Helper()
	for _, s := range []unitwatch.UnitState{unitwatch.UnitActive, unitwatch.UnitReloading, unitwatch.UnitActivating, unitwatch.UnitDeactivating, unitwatch.UnitFailed} {
		if s.String() == name {
			return s
		}
	}
	t.Fatalf("no state %s", name)
	return 0
}

// What checks take out is an event that says why.
func TestCheckEvents(t *testing.T) {
	toml := strings.Replace(oneVIP, "192.0.2.1:80", freePort(t), 1) + "[vip.db.health]\ninterval = \"100ms\"\ntimeout = \"100ms\"\nfall = 1\ninitial = \"up\"\n"
	p := start(t, toml, newMemoryPath(lbtest.DefaultLimits), nil)
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.Tick(5 * time.Millisecond); len(eventsIn(p.out.String())) == 0 && time.Now().Before(deadline); <-tick {
	}
	if got := eventsIn(p.out.String()); len(got) != 1 || !strings.HasPrefix(got[0], "backend-down db 127.0.0.1:") || !strings.HasSuffix(got[0], " failing: connection refused") {
		t.Errorf("events %q", got)
	}
}
