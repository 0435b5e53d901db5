package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/unitwatch"
)

// storeInterval is how often the descriptor store is counted while it is not
// known to be whole. A whole one is counted again after each daemon-reload, the
// one time at which systemd drops descriptors of a unit that runs: a daemon that
// nothing happens to costs systemd nothing.
const storeInterval = 10 * time.Second

// kept is what is known of the descriptor store. The loop owns it.
type kept struct {
	store   *fdstore.Store
	counter *fdstore.Counter
	err     error     // of the newest attempt to bring it up to date
	at      time.Time // of that
	behind  bool      // hooks were attached that the store was not told of
	want    int       // descriptors that belong in it
	count   fdstore.Count
	counted time.Time
	short   bool // the newest count that was of all that was sent found too few
	refill  refill

	unsealed bool // what runs is not what the newest memfd has
}

func newKept(s *fdstore.Store) kept { return kept{store: s, counter: fdstore.NewCounter(s)} }

// askStore asks systemd for the count of this process's unit.
func askStore(ctx context.Context) (held, most uint32, err error) {
	return unitwatch.AskDescriptorStore(ctx, os.Getpid())
}

// wanted is what the store should hold.
func (d *daemon) wanted() []fdstore.FD {
	var want []fdstore.FD
	if d.dp.dataPath != nil {
		for _, f := range d.dp.FDs() {
			want = append(want, fdstore.FD{Name: f.Name, FD: f.FD, Poll: f.Poll})
		}
	} else {
		want = slices.Clone(d.handed) // nobody has taken them: they stay
	}
	if d.state != nil {
		want = slices.DeleteFunc(want, func(f fdstore.FD) bool { return isLastGood(f.Name) })
		want = append(want, fdstore.FD{Name: d.good.name(), FD: int(d.state.Fd())})
	}
	for _, f := range d.heirless {
		if !d.replaced(f) && !slices.ContainsFunc(want, func(w fdstore.FD) bool { return w.Name == f.Name }) {
			want = append(want, f)
		}
	}
	return append(want, d.backends.wanted()...)
}

// replaced says whether this process has a state in the place of one that was
// handed over. Until then the old one stays in the store, also where this version
// cannot read it: another may.
func (d *daemon) replaced(f fdstore.FD) bool {
	return isLastGood(f.Name) && d.state != nil || isRuntime(f.Name) && d.backends.stateFile != nil
}

// keep brings the descriptor store up to date. What could not be sealed is tried again
// each time.
func (d *daemon) keep(ctx context.Context, refill bool) {
	var err error
	if d.kept.unsealed {
		err = d.remember()
	}
	want := d.wanted()
	d.kept.want, d.kept.behind = len(want), false
	d.bury()
	err = errors.Join(err, d.kept.store.Sync(ctx, want, refill))
	if err != nil && (d.kept.err == nil || err.Error() != d.kept.err.Error()) {
		d.log.Error("keep the data plane in the descriptor store", "err", err)
	}
	d.kept.err, d.kept.at = err, time.Now()
	d.kept.counter.Poke()
}

// lookAtStore tries again what failed, and has the store counted while it is not
// known to be whole.
func (d *daemon) lookAtStore(ctx context.Context) {
	if !d.ready || !d.notify.Managed() {
		return
	}
	if d.kept.err != nil && time.Since(d.kept.at) > storeInterval {
		d.keep(ctx, true)
	}
	whole := d.kept.count.Err == nil && int(d.kept.count.Held) >= d.kept.want
	if !whole && time.Since(d.kept.counted) > storeInterval {
		d.kept.counted = time.Now()
		d.kept.counter.Poke()
	}
}

// bury closes memfds that were handed over and have been replaced.
func (d *daemon) bury() {
	d.heirless = slices.DeleteFunc(d.heirless, func(f fdstore.FD) bool {
		old := d.replaced(f)
		if old {
			unix.Close(f.FD) // nothing was written through it
		}
		return old
	})
}

// settleStore removes what a memfd of verdicts has replaced, where c says that the
// manager took it.
func (d *daemon) settleStore(c fdstore.Count) {
	if d.kept.err != nil {
		return // keep does it
	}
	removed, err := d.kept.store.Settle(c, d.wanted())
	switch {
	case err != nil:
		d.log.Error("keep what is known of backends in the descriptor store", "err", err)
		d.kept.err, d.kept.at = err, time.Now()
	case removed:
		d.bury()
		d.kept.counter.Poke()
	}
}

// count hears how many descriptors the manager holds.
func (d *daemon) count(ctx context.Context, c fdstore.Count) {
	d.kept.counted = time.Now()
	d.kept.count = c
	if !d.ready {
		return
	}
	d.settleStore(c)
	if c.Err != nil {
		return
	}
	want := d.kept.want
	if d.kept.store.Newest(c) {
		d.kept.short = int(c.Held) < want
	}
	if int(c.Held) >= want {
		d.kept.refill = refill{}
		return
	}
	if !d.kept.refill.due(c, want, time.Now()) {
		return
	}
	d.log.Warn("the descriptor store has lost descriptors; storing them again", "held", c.Held, "want", want, "max", c.Max)
	d.keep(ctx, true)
}

// refill is the newest attempt at making the store whole.
type refill struct {
	at  time.Time
	max uint32 // what the store could hold then
}

// due decides whether to try again: at once when the limit is another one, never
// where it is known to be too low, else now and then.
func (r *refill) due(c fdstore.Count, want int, now time.Time) bool {
	again := r.at.IsZero() || c.Max != r.max || int(c.Max) >= want && now.Sub(r.at) >= storeInterval
	if again {
		*r = refill{now, c.Max}
	}
	return again
}

// held says whether the data plane outlives this process.
func (d *daemon) held() api.Held {
	h := api.Held{Count: int(d.kept.count.Held), Want: d.kept.want}
	switch {
	case !d.notify.Managed():
		h.Reason = "not started by a service manager"
	case d.kept.err != nil:
		h.Reason = d.kept.err.Error()
	case !d.ready:
		h.Reason = "not ready yet"
	case d.kept.count.Err != nil:
		// Sent, received, and not countable: without a bus nobody can say more.
		h.Store, h.Reason = true, d.kept.count.Err.Error()
	case h.Count >= h.Want:
		h.Store = true
	case !d.kept.short && !d.kept.store.Newest(d.kept.count):
		// Sent, and asked about; what is missing is the answer alone.
		h.Store, h.Reason = true, "systemd has not said yet how many descriptors it holds"
	case int(d.kept.count.Max) < h.Want:
		h.Reason = fmt.Sprintf("the unit's FileDescriptorStoreMax=%d is less than %d", d.kept.count.Max, h.Want)
	default:
		h.Reason = fmt.Sprintf("systemd holds %d of %d descriptors", h.Count, h.Want)
	}
	return h
}
