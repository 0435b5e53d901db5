package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slicelb/slicelb/api"
)

// drainsOn answers at a socket, for as long as the test lasts, that a connection is left.
func drainsOn(t *testing.T, socket string, busy bool) {
	t.Helper()
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var answer any = api.Live{Backends: []api.BackendLive{{VIP: "db", Address: "192.0.2.11:5432", Order: api.OrderDrain, Live: 1}}}
	status := http.StatusOK
	if busy {
		answer, status = api.Errorf(api.Busy, "the daemon stops"), http.StatusServiceUnavailable
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(answer)
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Close()
		<-served
	})
}

// A wait for connections ends when the daemon was stopped, and goes on while it is
// restarted, or nobody knows: to the end of its time.
func TestWaitForStoppedDaemon(t *testing.T) {
	const comes, goes = 600 * time.Millisecond, 1200 * time.Millisecond
	down := func(time.Duration) string { return "inactive" }
	for _, tt := range []struct {
		name string
		is   func(since time.Duration) string // the unit's state
		ends time.Duration                    // at the latest
		live string                           // what answers meanwhile; "": nothing
	}{
		{"stopped", down, 2 * time.Second, ""},
		{"stopped, after another restart", down, goes + gonePatience + goneInterval + waitInterval, "for a moment"},
		{"another serves, and is busy", down, 0, "busy"},
		{"failed", func(time.Duration) string { return "failed" }, 2 * time.Second, ""},
		{"stopped while it is waited for", func(d time.Duration) string {
			if d < 5*time.Second {
				return "deactivating"
			}
			return "inactive"
		}, 7 * time.Second, ""},
		{"restarted", func(d time.Duration) string {
			if d%time.Second < gonePatience/2 {
				return "inactive"
			}
			return "activating"
		}, 0, ""},
		{"nobody knows", func(time.Duration) string { return "" }, 0, ""},
		{"it hangs", func(time.Duration) string { return "active" }, 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			socket, away := filepath.Join(dir, "api.sock"), filepath.Join(dir, "away")
			earliest := gonePatience
			switch tt.live {
			case "busy":
				drainsOn(t, socket, true)
			case "for a moment":
				drainsOn(t, away, false)
				earliest += goes
			}
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				var said strings.Builder
				asked := 0
				if tt.live == "for a moment" {
					for after, move := range map[time.Duration][2]string{comes: {away, socket}, goes: {socket, away}} {
						time.AfterFunc(after, func() {
							if err := os.Rename(move[0], move[1]); err != nil {
								t.Error(err)
							}
						})
					}
				}
				g := &globals{socket: socket, env: &env{
					stderr: &said, lookup: func(string) (string, bool) { return "", false },
					unitState: func(context.Context) (string, string) {
						asked++
						return tt.is(time.Since(begun)), ""
					},
				}}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				err := g.waitDrained(ctx, api.BackendChange{VIP: "db", Address: "192.0.2.11:5432", State: api.OrderDrain})
				took := time.Since(begun)
				switch gone := errors.Is(err, api.ErrNotRunning); {
				case tt.ends == 0 && (gone || took < 30*time.Second):
					t.Errorf("ended after %v: %v", took, err)
				case tt.ends > 0 && (!gone || took < earliest || took > tt.ends):
					t.Errorf("ended after %v, want %v to %v: %v", took, earliest, tt.ends, err)
				}
				if most := int(took/goneInterval) + 1; asked > most {
					t.Errorf("systemd was asked %d times in %v, want %d at the most", asked, took, most)
				}
				if told := strings.Contains(said.String(), "slicelb was stopped"); told != (tt.ends > 0) {
					t.Errorf("said: %s", said.String())
				}
			})
		})
	}
}
