package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/prose"
)

const (
	// sweepGap is the least time between two sweeps; a sweep looks at every socket
	// that a VIP sent, so a slow one is followed by ten times its length.
	sweepGap   = 100 * time.Millisecond
	sweepShare = 10
	// sweepAgain is when a sweep is repeated, for calls that were on their way
	// when it looked: they had chosen, and were not connected yet.
	sweepAgain = time.Second
	// stuckInterval is how often what could not be closed is tried again.
	stuckInterval = 10 * time.Second
)

// terminated is what became of sockets whose backends are gone, or that policy denies.
type terminated struct {
	closed      uint64 // since the start
	left, stuck int    // by the newest sweep: see bpf.Swept
	err         error  // of the newest sweep, or why some are left
}

// terminate closes sockets of backends that are gone, and such that policy denies,
// beside the loop: nothing waits for it. It begins with what a process before this one
// may have left.
func (d *daemon) terminate(ctx context.Context, dp dataPath) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	repeat := false
	earliest := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-dp.Gone():
			repeat = true
			timer.Reset(max(time.Until(earliest), 0))
			continue
		case <-timer.C:
		}
		begun := time.Now()
		s, err := dp.Sweep()
		took := time.Since(begun)
		earliest = time.Now().Add(max(sweepGap, sweepShare*took))
		d.noteSwept(s, err, took)
		switch {
		case repeat:
			repeat = false
			timer.Reset(max(sweepAgain, time.Until(earliest)))
		case err != nil || s.Left+s.Stuck > 0:
			timer.Reset(max(stuckInterval, time.Until(earliest)))
		}
	}
}

func (d *daemon) noteSwept(s bpf.Swept, err error, took time.Duration) {
	before := d.swept.Load()
	if before == nil {
		before = &terminated{}
	}
	next := &terminated{before.closed + uint64(s.Closed), s.Left, s.Stuck, s.Err}
	if err != nil {
		next.left, next.stuck, next.err = before.left, before.stuck, err
	}
	if s.Closed > 0 {
		d.log.Info("sockets were closed whose backend is gone, or that policy denies", "number", s.Closed, "took", took.Round(time.Microsecond).String())
	}
	if next.err != nil && (before.err == nil || before.err.Error() != next.err.Error()) {
		d.log.Warn("close sockets whose backend is gone, or that policy denies", "err", next.err)
	}
	d.swept.Store(next)
}

// sweptNotes are what a status says of it.
func (d *daemon) sweptNotes(out *api.Sockets, notes []string) []string {
	t := d.swept.Load()
	if t == nil {
		return notes
	}
	out.Closed, out.Stuck = t.closed, t.left+t.stuck
	switch {
	case t.stuck > 0:
		text := fmt.Sprintf("%s in other network namespaces is connected to a backend that is gone, or that policy denies", prose.Plural(t.stuck, "socket"))
		if t.stuck > 1 {
			text = fmt.Sprintf("%s in other network namespaces are connected to backends that are gone, or that policy denies", prose.Plural(t.stuck, "socket"))
		}
		if t.err != nil {
			text += fmt.Sprintf(" (%v)", t.err)
		}
		notes = append(notes, text+": closing them takes the unit's drop-in terminate.conf, or a restart of who holds them")
	case t.err != nil:
		notes = append(notes, fmt.Sprintf("sockets whose backend is gone, or that policy denies, are not closed: %v", t.err))
	}
	return notes
}
