package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/unitwatch"
)

// A daemon that is on its way is not one to be started.
func TestWhyNotRunning(t *testing.T) {
	for _, tt := range []struct{ active, sub, want, not string }{
		{"activating", "auto-restart", "daemon not running: nothing answers; its unit is starting (auto-restart)\nhint: ask again in a moment", "start it"},
		{"deactivating", "stop-sigterm", "its unit is stopping (stop-sigterm)", "start it"},
		{"active", "running", "its unit is active, and does not answer (running)", "start it"},
		{"failed", "failed", "its unit has failed\nhint: journalctl --unit=slicelb says why", ""},
		{"inactive", "dead", "nothing answers\nhint: start it: systemctl start slicelb", "its unit"},
		{"", "", "nothing answers\nhint: start it: systemctl start slicelb", "unit is"},
	} {
		var out strings.Builder
		e := &env{stderr: &out, unitState: func(context.Context) (string, string) { return tt.active, tt.sub }}
		code := report(e, whyNotRunning(t.Context(), e, fmt.Errorf("%w: nothing answers", api.ErrNotRunning)))
		if code != exitNotRunning || !strings.Contains(out.String(), tt.want) || tt.not != "" && strings.Contains(out.String(), tt.not) {
			t.Errorf("%s: exit %d, %s", tt.active, code, out.String())
		}
	}
}

// A unit that systemd has not loaded is one that does not run, which is more than that
// nobody could be asked.
func TestStateOf(t *testing.T) {
	for _, tt := range []struct {
		unit        unitwatch.LoadedUnit
		err         error
		active, sub string
	}{
		{unitwatch.LoadedUnit{Active: "active", Sub: "running"}, nil, "active", "running"},
		{unitwatch.LoadedUnit{Active: "inactive", Sub: "dead"}, nil, "inactive", "dead"},
		{unitwatch.LoadedUnit{Active: "inactive", Sub: "dead", StartJob: true}, nil, "activating", ""},
		{unitwatch.LoadedUnit{Active: "failed", Sub: "failed", StartJob: true}, nil, "activating", ""},
		{unitwatch.LoadedUnit{Active: "activating", Sub: "start-pre", StartJob: true}, nil, "activating", "start-pre"},
		{unitwatch.LoadedUnit{Active: "deactivating", Sub: "stop"}, nil, "deactivating", "stop"},
		{unitwatch.LoadedUnit{Active: "active", Sub: "running", StartJob: true}, nil, "active", "running"},
		{unitwatch.LoadedUnit{}, unitwatch.ErrNotLoaded, "inactive", "dead"},
		{unitwatch.LoadedUnit{}, context.DeadlineExceeded, "", ""},
	} {
		if active, sub := stateOf(tt.unit, tt.err); active != tt.active || sub != tt.sub {
			t.Errorf("%+v, %v: %q, %q", tt.unit, tt.err, active, sub)
		}
	}
}
