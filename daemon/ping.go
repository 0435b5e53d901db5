package daemon

import (
	"context"
	"time"

	"github.com/slicelb/slicelb/lb"
)

// ping is the loop's sign of life, not more often than the watchdog needs it.
func (d *daemon) ping() {
	if d.notify.Watchdog > 0 && time.Since(d.pinged) >= d.notify.Watchdog/4 {
		d.pinged = time.Now()
		if err := d.notify.Send("WATCHDOG=1"); err != nil {
			d.log.Warn("watchdog", "err", err)
		}
	}
}

// reconcile has the reconciler bring the kernel to state. Tens of thousands of VIPs
// take longer than the watchdog waits: it is told of life as long as writes get
// done, and of none where one hangs.
func (d *daemon) reconcile(ctx context.Context, state *lb.State) (result lb.Result, err error) {
	if d.notify.Watchdog == 0 {
		return d.rec.Reconcile(ctx, state)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		result, err = d.rec.Reconcile(ctx, state)
	}()
	t := time.NewTicker(d.notify.Watchdog / 4)
	defer t.Stop()
	last := progress(d.rec.Stats())
	for {
		select {
		case <-done:
			return result, err
		case <-t.C:
		}
		if now := progress(d.rec.Stats()); now != last {
			last = now
			d.ping()
		}
	}
}

// progress grows with all that the reconciler gets done.
func progress(s lb.Stats) uint64 { return s.Writes + s.Barriers + s.Resyncs }
