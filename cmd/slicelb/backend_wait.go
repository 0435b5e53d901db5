package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
)

const (
	// waitInterval is how often a wait asks how many connections are left.
	waitInterval = 50 * time.Millisecond

	// waitPatience is how long a wait without an end bears that nobody answers: a restart
	// of the daemon takes less.
	waitPatience = 3 * time.Second

	// A daemon whose unit is down for gonePatience does not come by itself: in a restart it
	// is for a moment. goneInterval is how often systemd is asked.
	gonePatience = time.Second
	goneInterval = 200 * time.Millisecond
)

// waitDrained returns when the backends of a change have no connection left, as
// the kernel counts them. While the daemon is away they have them still, and the
// kernel gives them no others: where the wait has an end it goes on until then. One that
// was stopped does not come back, so that would be in vain. A daemon that ends while a
// unit stops that is ordered after it starts again only when that has stopped.
func (g *globals) waitDrained(ctx context.Context, change api.BackendChange) error {
	if g.getenv("SERVICE_RESULT") != "" && g.getenv("EXIT_CODE") != "" {
		// An ExecStop= of a service whose main process has ended by itself: what
		// is connected to it is not served any more.
		fmt.Fprintln(g.stderr, "slicelb: the service has ended: its connections are not waited for")
		return nil
	}
	_, ends := ctx.Deadline()
	answered, told := time.Now(), false
	tick := time.NewTicker(waitInterval)
	defer tick.Stop()
	var left *api.Live
	var gone absence
	for {
		live, err := g.client().Live(ctx, change)
		var refused *api.Error
		switch {
		case err == nil:
			left, answered, told, gone = live, time.Now(), false, absence{}
			if err := stillOut(live); err != nil {
				return err
			}
			if left.Total() == 0 {
				return nil
			}
		case ctx.Err() != nil:
		case errors.As(err, &refused) && !api.IsBusy(err):
			return err
		case errors.Is(err, api.ErrNotRunning) && gone.lasts(ctx, g):
			fmt.Fprintln(g.stderr, "slicelb: slicelb was stopped: connections are not waited for any more")
			return err
		case time.Since(answered) < waitPatience:
		case !ends:
			return err
		case !told:
			told = true
			fmt.Fprintf(g.stderr, "slicelb: %v; waiting all the same\n", err)
		}
		select {
		case <-ctx.Done():
			return notDrained(ctx, left)
		case <-tick.C:
		}
	}
}

// absence is of a daemon whose unit is down.
type absence struct{ since, asked time.Time }

// lasts reports whether the unit is down for good, as far as systemd says.
func (a *absence) lasts(ctx context.Context, g *globals) bool {
	if g.unitState == nil || time.Since(a.asked) < goneInterval {
		return false
	}
	a.asked = time.Now()
	switch active, _ := g.unitState(ctx); {
	case active != "inactive" && active != "failed":
		a.since = time.Time{}
	case a.since.IsZero():
		a.since = a.asked
	}
	return !a.since.IsZero() && time.Since(a.since) >= gonePatience
}

// stillOut is why waiting is of no use: what a backend has ends only while it gets
// nothing new.
func stillOut(live *api.Live) error {
	for _, b := range live.Backends {
		if b.Order == "" {
			return &exitError{
				code: exitFailed, err: fmt.Errorf("not drained: %s of %s is ready again, or gone from the configuration", b.Address, b.VIP),
				hint: "slicelb backend list --vip " + b.VIP,
			}
		}
	}
	return nil
}

// notDrained says what is left when the time is over.
func notDrained(ctx context.Context, left *api.Live) error {
	if !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return ctx.Err()
	}
	if left == nil {
		return &exitError{code: exitFailed, err: errors.New("not drained in time: the daemon does not answer")}
	}
	var text []string
	for _, b := range left.Backends {
		if b.Live > 0 {
			text = append(text, fmt.Sprintf("%s of %s has %s", b.Address, b.VIP, prose.Plural(int(min(b.Live, 1<<31-1)), "connection")))
		}
	}
	return &exitError{code: exitFailed, err: fmt.Errorf("not drained in time: %s left", strings.Join(text, ", "))}
}
