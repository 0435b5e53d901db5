package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slicelb/slicelb/api"
)

// A wait for connections ends when the daemon was stopped, and goes on while it is
// restarted, or nobody knows: to the end of its time.
func TestWaitForStoppedDaemon(t *testing.T) {
	for _, tt := range []struct {
		name string
		is   func(since time.Duration) string // the unit's state
		ends time.Duration                    // at the latest
	}{
		{"stopped", func(time.Duration) string { return "inactive" }, 2 * time.Second},
		{"failed", func(time.Duration) string { return "failed" }, 2 * time.Second},
		{"stopped while it is waited for", func(d time.Duration) string {
			if d < 5*time.Second {
				return "deactivating"
			}
			return "inactive"
		}, 7 * time.Second},
		{"restarted", func(d time.Duration) string {
			if d%time.Second < gonePatience/2 {
				return "inactive"
			}
			return "activating"
		}, 0},
		{"nobody knows", func(time.Duration) string { return "" }, 0},
		{"it hangs", func(time.Duration) string { return "active" }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "api.sock") // nothing is there
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				var said strings.Builder
				g := &globals{socket: socket, env: &env{
					stderr: &said, lookup: func(string) (string, bool) { return "", false },
					unitState: func(context.Context) (string, string) { return tt.is(time.Since(begun)), "" },
				}}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				err := g.waitDrained(ctx, api.BackendChange{VIP: "db", Address: "192.0.2.11:5432", State: api.OrderDrain})
				took := time.Since(begun)
				switch gone := errors.Is(err, api.ErrNotRunning); {
				case tt.ends == 0 && (gone || took < 30*time.Second):
					t.Errorf("ended after %v: %v", took, err)
				case tt.ends > 0 && (!gone || took < gonePatience || took > tt.ends):
					t.Errorf("ended after %v, want %v at the most: %v", took, tt.ends, err)
				}
				if told := strings.Contains(said.String(), "slicelb was stopped"); told != (tt.ends > 0) {
					t.Errorf("said: %s", said.String())
				}
			})
		})
	}
}
