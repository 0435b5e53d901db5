package daemon

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/observe"
)

// refusals writes what was refused to the journal: so many of each group in a
// while one by one, and the number of the others. run's goroutine writes; add
// and miss are called by the observer's and do not wait.
type refusals struct {
	log  *slog.Logger
	in   chan refusedOne
	over atomic.Uint64 // that found no room in in

	window time.Duration
	groups map[string]*tally // of this window
}

// refusedOne is one, or a number of one group that were not told one by one.
type refusedOne struct {
	event  observe.Event
	missed observe.Lost
}

// tally is what one group had refused in a window.
type tally struct {
	told  int
	count uint64 // that were not written
}

const (
	refusalBuffer = 128
	refusalWindow = time.Minute
	refusalsTold  = 10 // of each group, in a window
)

func newRefusals(log *slog.Logger) *refusals {
	return &refusals{log: log, in: make(chan refusedOne, refusalBuffer), window: refusalWindow, groups: map[string]*tally{}}
}

// journaled says whether a refusal is the journal's: it has to do with who
// called. That a VIP is down is said once, when it happens.
func journaled(e *observe.Event) bool {
	return e.Told == bpf.Denied || e.Told == bpf.Audited || e.Told == bpf.Rejected && e.Reason == bpf.NoClient
}

func (r *refusals) add(e *observe.Event) {
	if !journaled(e) {
		return
	}
	select {
	case r.in <- refusedOne{event: *e}:
	default:
		r.over.Add(1)
	}
}

func (r *refusals) miss(l observe.Lost) {
	if l.Where == observe.LostWatcher {
		return
	}
	select {
	case r.in <- refusedOne{missed: l}:
	default:
		r.over.Add(l.Count)
	}
}

// run writes until ctx ends.
func (r *refusals) run(ctx context.Context) error {
	tick := time.NewTicker(r.window)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			r.sum()
			return nil
		case one := <-r.in:
			r.write(&one)
		case <-tick.C:
			r.sum()
		}
	}
}

func (r *refusals) write(one *refusedOne) {
	if l := one.missed; l.Count > 0 {
		r.of(l.Group).count += l.Count
		return
	}
	e := &one.event
	g := r.of(e.Group)
	if g.told == refusalsTold {
		g.count++
		return
	}
	g.told++
	d := decided(e)
	text, level := "refused", slog.LevelWarn
	if e.Told == bpf.Audited {
		text, level = "audited", slog.LevelInfo // allowed
	}
	r.log.Log(context.Background(), level, text, "event", e.Told.String(), "group", e.Group, "vip", e.VIP, "address", d.Target(),
		"reason", d.Reason, "rule", e.Rule, "pid", d.PID, "command", d.Command, "unit", e.Unit, "cgroup", e.Path)
}

func (r *refusals) of(group string) *tally {
	g := r.groups[group]
	if g == nil {
		g = &tally{}
		r.groups[group] = g
	}
	return g
}

// sum says how many were not written, and begins a new window.
func (r *refusals) sum() {
	if n := r.over.Swap(0); n > 0 {
		r.of("").count += n
	}
	for name, g := range r.groups {
		if g.count > 0 {
			// Group "": nobody knows whose.
			r.log.Warn("more was refused or audited than is told here", "event", eventSuppressed, "group", name, "number", g.count)
		}
	}
	clear(r.groups)
}
