package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/slicelb/slicelb/observe"
)

// floodRate is how many decisions a second are made, and wanted.
const floodRate = 100_000

// runFlood has a host make so many decisions a second, all of them wanted by a
// watcher that reads and by one that never does, and prints what was told, what
// was lost where, and what memory it took. Each decision is in one of the counts.
func runFlood(ctx context.Context, o options, out io.Writer) (err error) {
	base, done, err := arena(o)
	if err != nil {
		return err
	}
	v, err := newVariant(base, "flood", vipAddr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close(), done()) }()
	d, err := v.attachPlane(1, 1, 1)
	if err != nil {
		return err
	}
	if err := v.start(); err != nil {
		return err
	}
	r, err := d.Decisions()
	if err != nil {
		return err
	}
	obs := observe.New(observe.Options{
		Names: func(*observe.Event) {}, At: func(time.Duration) time.Time { return time.Time{} },
		Refused: func(*observe.Event) {}, Missed: func(observe.Lost) {}, Log: slog.New(slog.DiscardHandler),
	})
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var tasks sync.WaitGroup
	var runErr error
	tasks.Go(func() { runErr = obs.Run(ctx, d, r) })
	reading, _, err := obs.Watch(observe.Query{})
	if err != nil {
		return err
	}
	idle, _, err := obs.Watch(observe.Query{})
	if err != nil {
		return err
	}
	var got, missed uint64
	tasks.Go(func() {
		enc := json.NewEncoder(io.Discard)
		for {
			b, err := reading.Next(context.Background())
			if err != nil {
				return
			}
			for i := range b.Events {
				if enc.Encode(&b.Events[i]) == nil {
					got++
				}
			}
			for _, l := range b.Lost {
				if l.Where == observe.LostWatcher {
					missed += l.Count
				}
			}
		}
	})
	before, err := statusField("RssAnon")
	if err != nil {
		return err
	}
	const steps, perSecond = 100, 20
	begun := time.Now()
	for i := range steps {
		if _, err := v.time(kindConnect, floodRate/perSecond); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(begun.Add(time.Duration(i+1) * time.Second / perSecond))):
		}
	}
	took := time.Since(begun)
	const made = steps * floodRate / perSecond
	var told uint64
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		st, err := d.Stats()
		if err != nil {
			return err
		}
		if told, _ = obs.Counts(); told+st.DecisionsLost == made || time.Now().After(deadline) {
			break
		}
	}
	after, err := statusField("RssAnon")
	if err != nil {
		return err
	}
	st, err := d.Stats()
	if err != nil {
		return err
	}
	rest, err := idle.Next(ctx)
	if err != nil {
		return err
	}
	stop()
	tasks.Wait()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "decisions made, a second\t%.0f\n", made/took.Seconds())
	fmt.Fprintf(w, "decisions made\t%d\n", made)
	fmt.Fprintf(w, "told, and lost in the kernel\t%d + %d = %d\n", told, st.DecisionsLost, told+st.DecisionsLost)
	fmt.Fprintf(w, "a watcher that reads: had, and missed\t%d + %d = %d\n", got, missed, got+missed)
	fmt.Fprintf(w, "one that does not: kept, and missed\t%d + %d = %d\n", len(rest.Events), rest.Lost[0].Count, uint64(len(rest.Events))+rest.Lost[0].Count)
	fmt.Fprintf(w, "anonymous memory before and after\t%.1f MiB, %.1f MiB\n", float64(before)/(1<<20), float64(after)/(1<<20))
	if told+st.DecisionsLost != made || got+missed != told {
		runErr = errors.Join(runErr, errors.New("not every decision is in a count"))
	}
	return errors.Join(runErr, w.Flush())
}
