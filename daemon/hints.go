package daemon

import (
	"context"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/unitwatch"
)

// readHints passes the kernel's hints on until the data plane is closed. A watcher
// that is behind gets one look at everything in place of them all.
func (d *daemon) readHints(ctx context.Context, h hints) {
	for {
		e, err := h.Read()
		if err != nil {
			if ctx.Err() == nil {
				d.log.Error("the kernel's hints are not read any more", "err", err)
			}
			return
		}
		hint := unitwatch.Hint{ID: e.ID, Parent: e.Parent, Kind: unitwatch.HintMkdir, At: fromMonotonic(e.Time)}
		if e.Kind == bpf.Rmdir {
			hint.Kind = unitwatch.HintRmdir
		}
		select {
		case d.hints <- hint:
			continue
		default:
		}
		select {
		case d.hints <- unitwatch.Hint{Kind: unitwatch.HintLost}:
		case <-ctx.Done():
			return
		}
	}
}

// resync has the watcher look at everything, now or at the next tick.
func (d *daemon) resync(why unitwatch.HintKind) {
	select {
	case d.hints <- unitwatch.Hint{Kind: why}:
		d.unsynced = 0
	default:
		d.unsynced = why
	}
}

// readFailures passes on what the kernel saw fail, until the data plane is closed.
// It is a reason to check, no verdict: any process of the host can cause it.
func (d *daemon) readFailures(ctx context.Context, f failures) {
	for {
		failed, err := f.Read()
		if err != nil {
			if ctx.Err() == nil {
				d.log.Error("failed connects are not read any more", "err", err)
			}
			return
		}
		d.log.Debug("a connect failed", "vip", failed.VIP, "backend", failed.Backend, "err", failed.Err)
		d.backends.checker.Suspect(health.Endpoint{VIP: failed.VIP, Addr: failed.Backend})
	}
}
