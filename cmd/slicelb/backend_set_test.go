package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
)

// An order waits for a daemon that restarts, and not for one that does not come.
func TestOrderOverRestart(t *testing.T) {
	change := api.BackendChange{VIP: "db", Address: "192.0.2.11:5432", State: "drain"}
	for _, tt := range []struct {
		active string // of the unit
		comes  bool
	}{
		{"activating", true}, {"deactivating", true}, {"active", true}, {"inactive", false}, {"failed", false}, {"", false},
	} {
		t.Run(tt.active, func(t *testing.T) {
			socket := filepath.Join(t.TempDir(), "api.sock")
			ctx, cancel := context.WithCancel(t.Context())
			served := make(chan error, 1)
			var asked atomic.Int32
			e := &env{stderr: io.Discard, unitState: func(context.Context) (string, string) {
				if asked.Add(1) == 3 {
					ln, err := api.Listen(socket, -1)
					if err != nil {
						t.Error(err)
					}
					go func() { served <- (&api.Server{Daemon: canned{}, Log: slog.New(slog.DiscardHandler)}).Serve(ctx, ln) }()
				}
				return tt.active, ""
			}}
			g := &globals{env: e, socket: socket}
			begun := time.Now()
			_, err := g.order(t.Context(), change)
			if tt.comes != (err == nil) || !tt.comes && !errors.Is(err, api.ErrNotRunning) {
				t.Errorf("%v", err)
			}
			if took := time.Since(begun); !tt.comes && took > waitPatience {
				t.Errorf("after %v", took)
			}
			cancel()
			if tt.comes {
				if err := <-served; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// leaving stops while it has an order, the first time.
type leaving struct {
	canned
	asked *atomic.Int32
}

func (l leaving) SetBackend(ctx context.Context, q api.BackendChange) (*api.BackendChanged, error) {
	if l.asked.Add(1) == 1 {
		return nil, api.Errorf(api.Busy, "the daemon stops")
	}
	return l.canned.SetBackend(ctx, q)
}

// An order that a daemon had, which waited with it until it stopped, is given to the next
// one.
func TestOrderOfOneThatStops(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := api.Listen(socket, -1)
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	served := make(chan error, 1)
	go func() {
		served <- (&api.Server{Daemon: leaving{canned{}, &asked}, Log: slog.New(slog.DiscardHandler)}).Serve(ctx, ln)
	}()
	g := &globals{env: &env{stderr: io.Discard, unitState: func(context.Context) (string, string) { return "", "" }}, socket: socket}
	if _, err := g.order(t.Context(), api.BackendChange{VIP: "db", Address: "192.0.2.11:5432", State: "drain"}); err != nil || asked.Load() != 2 {
		t.Errorf("asked %d times: %v", asked.Load(), err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
