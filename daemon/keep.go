package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
)

// storeInterval is how often the descriptor store is counted while it is not
// known to be whole. A whole one is counted again after each daemon-reload, the
// one time at which systemd drops descriptors of a unit that runs: a daemon that
// nothing happens to costs systemd nothing.
const storeInterval = 10 * time.Second

// wanted is what the store should hold.
func (d *daemon) wanted() []stored {
	var want []stored
	if d.dp.dataPath != nil {
		for _, f := range d.dp.FDs() {
			want = append(want, stored{Name: f.Name, FD: f.FD, Poll: f.Poll})
		}
	} else {
		want = slices.Clone(d.handed) // nobody has taken them: they stay
	}
	if d.state != nil {
		want = slices.DeleteFunc(want, func(f stored) bool { return isLastGood(f.Name) })
		want = append(want, stored{Name: d.good.name(), FD: int(d.state.Fd())})
	}
	for _, f := range d.heirless {
		if !d.replaced(f) && !slices.ContainsFunc(want, func(w stored) bool { return w.Name == f.Name }) {
			want = append(want, f)
		}
	}
	return append(want, d.backends.wanted()...)
}

// replaced says whether this process has a state in the place of one that was
// handed over. Until then the old one stays in the store, also where this version
// cannot read it: another may.
func (d *daemon) replaced(f stored) bool {
	return isLastGood(f.Name) && d.state != nil || isRuntime(f.Name) && d.backends.stateFile != nil
}

// keep brings the descriptor store up to date.
func (d *daemon) keep(ctx context.Context, refill bool) {
	want := d.wanted()
	d.wants, d.unkept = len(want), false
	d.bury()
	err := d.store.sync(ctx, want, refill)
	if err != nil && (d.storeErr == nil || err.Error() != d.storeErr.Error()) {
		d.log.Error("keep the data plane in the descriptor store", "err", err)
	}
	d.storeErr, d.kept = err, time.Now()
	d.keeper.poke()
}

// lookAtStore tries again what failed, and has the store counted while it is not
// known to be whole.
func (d *daemon) lookAtStore(ctx context.Context) {
	if !d.ready || !d.notify.managed() {
		return
	}
	if d.storeErr != nil && time.Since(d.kept) > storeInterval {
		d.keep(ctx, true)
	}
	whole := d.stored.err == nil && int(d.stored.held) >= d.wants
	if !whole && time.Since(d.counted) > storeInterval {
		d.counted = time.Now()
		d.keeper.poke()
	}
}

// bury closes memfds that were handed over and have been replaced.
func (d *daemon) bury() {
	d.heirless = slices.DeleteFunc(d.heirless, func(f stored) bool {
		old := d.replaced(f)
		if old {
			unix.Close(f.FD) // nothing was written through it
		}
		return old
	})
}

// settleStore removes what a memfd of verdicts has replaced, now that c says
// whether the manager took it.
func (d *daemon) settleStore(c storeCount) {
	if d.storeErr != nil || !c.received || c.of != d.store.sends.Load() {
		return // keep does it, or the next count
	}
	names := map[string]bool{}
	for _, f := range d.wanted() {
		names[f.Name] = true
	}
	if len(d.store.maybe) == 0 && !d.store.stale(names) {
		return
	}
	err := d.store.took(c)
	if err == nil {
		d.bury()
		var gone bool
		if gone, err = d.store.prune(unix.MSG_DONTWAIT, names); gone {
			d.keeper.poke()
		}
	}
	if err != nil {
		d.log.Error("keep what is known of backends in the descriptor store", "err", err)
		d.storeErr, d.kept = err, time.Now()
	}
}

// count hears how many descriptors the manager holds.
func (d *daemon) count(ctx context.Context, c storeCount) {
	d.counted = time.Now()
	d.stored = c
	d.stored.said = true
	if !d.ready {
		return
	}
	d.settleStore(d.stored)
	if c.err != nil {
		return
	}
	want := d.wants
	if c.of == d.store.sends.Load() {
		d.storeShort = int(c.held) < want
	}
	if int(c.held) >= want {
		d.refill = refill{}
		return
	}
	if !d.refill.due(c, want, time.Now()) {
		return
	}
	d.log.Warn("the descriptor store has lost descriptors; storing them again", "held", c.held, "want", want, "max", c.max)
	d.keep(ctx, true)
}

// refill is the newest attempt at making the store whole.
type refill struct {
	at  time.Time
	max uint32 // what the store could hold then
}

// due decides whether to try again: at once when the limit is another one, never
// where it is known to be too low, else now and then.
func (r *refill) due(c storeCount, want int, now time.Time) bool {
	again := r.at.IsZero() || c.max != r.max || int(c.max) >= want && now.Sub(r.at) >= storeInterval
	if again {
		*r = refill{now, c.max}
	}
	return again
}

// held says whether the data plane outlives this process.
func (d *daemon) held() api.Held {
	h := api.Held{Count: int(d.stored.held), Want: d.wants}
	switch {
	case !d.notify.managed():
		h.Reason = "not started by a service manager"
	case d.storeErr != nil:
		h.Reason = d.storeErr.Error()
	case !d.ready:
		h.Reason = "not ready yet"
	case d.stored.err != nil:
		// Sent, received, and not countable: without a bus nobody can say more.
		h.Store, h.Reason = true, d.stored.err.Error()
	case h.Count >= h.Want:
		h.Store = true
	case !d.storeShort && d.stored.of != d.store.sends.Load():
		// Sent, and asked about; what is missing is the answer alone.
		h.Store, h.Reason = true, "systemd has not said yet how many descriptors it holds"
	case int(d.stored.max) < h.Want:
		h.Reason = fmt.Sprintf("the unit's FileDescriptorStoreMax=%d is less than %d", d.stored.max, h.Want)
	default:
		h.Reason = fmt.Sprintf("systemd holds %d of %d descriptors", h.Count, h.Want)
	}
	return h
}
