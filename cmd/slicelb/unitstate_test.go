package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/api"
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
