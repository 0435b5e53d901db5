package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
)

// restarting is a daemon that ends each stream, as one does that stops.
type restarting struct {
	canned
	asked chan api.Observation
}

func (r restarting) Observe(_ context.Context, o api.Observation) (api.Stream, error) {
	select {
	case r.asked <- o:
	default:
	}
	return &cannedStream{[]api.Observed{{Decision: &api.Decision{Verdict: "denied", Group: "web"}}}}, nil
}

// A stream that one follows has no end of its own: where the daemon ends it, the
// next one goes on from there, and a daemon that does not come back is an error.
func TestObserveFollows(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "api.sock")
	ln, err := api.Listen(socket, -1)
	if err != nil {
		t.Fatal(err)
	}
	serving, stop := context.WithCancel(t.Context())
	d := restarting{asked: make(chan api.Observation, 2)}
	done := make(chan error, 1)
	srv := &api.Server{Daemon: d, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	go func() { done <- srv.Serve(serving, ln) }()

	var out, messages bytes.Buffer
	p := &observed{w: &out, messages: &messages, format: "table", headers: true}
	ctx, interrupt := context.WithTimeout(t.Context(), 20*time.Second)
	defer interrupt()
	followed := make(chan error, 1)
	before := time.Now()
	go func() { followed <- p.follow(ctx, api.NewClient(socket), api.Observation{Follow: true, Last: 10}) }()
	if o := <-d.asked; o.Last != 10 || !o.Since.IsZero() {
		t.Errorf("asked first for %+v", o)
	}
	if o := <-d.asked; o.Last != -1 || o.Since.Before(before) || !o.Follow {
		t.Errorf("asked again for %+v", o)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-followed; !errors.Is(err, api.ErrNotRunning) || ctx.Err() != nil {
		t.Errorf("when the daemon does not come back: %v", err)
	}
	if n := strings.Count(out.String(), "denied"); n < 2 || strings.Count(out.String(), "VERDICT") != 1 {
		t.Errorf("printed:\n%s", &out)
	}
	if want := "slicelb: the daemon has ended the stream: waiting for the next\n"; !strings.HasPrefix(messages.String(), want) {
		t.Errorf("messages: %q, want %q", &messages, want)
	}
	if err := p.follow(ctx, api.NewClient(socket), api.Observation{Follow: true}); !errors.Is(err, api.ErrNotRunning) {
		t.Errorf("without a daemon: %v", err)
	}
	interrupt()
	if err := p.follow(ctx, api.NewClient(socket), api.Observation{Follow: true}); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}

func TestMoment(t *testing.T) {
	at := time.Date(2026, 3, 4, 23, 59, 59, 123456789, time.UTC)
	for now, want := range map[time.Time]string{
		at.Add(time.Millisecond): "23:59:59.123456", at.Add(time.Second): "2026-03-04 23:59:59.123456", at.AddDate(1, 0, 0): "2026-03-04 23:59:59.123456",
	} {
		if got := moment(at, now); got != want {
			t.Errorf("at %v: %s, want %s", now, got, want)
		}
	}
}
