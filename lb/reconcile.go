package lb

import (
	"errors"
	"fmt"
	"time"

	"github.com/slicelb/slicelb/bpf"
)

type request struct {
	want  *State
	reply chan reply
}

type reply struct {
	Result
	err error
}

// reconcile makes want the state to keep, if it fits.
func (r *Reconciler) reconcile(want *State) (Result, error) {
	start := time.Now()
	result := Result{Resynced: r.have == nil}
	n, err := r.try(want)
	result.Writes, result.Duration = n, time.Since(start)
	if err == nil {
		result.Left = r.want.left
	}
	r.count(func(s *Stats) {
		s.Reconciles++
		s.LastDuration = result.Duration
	})
	var limit *LimitError
	switch {
	case errors.As(err, &limit):
		r.erred(err) // what ran before runs on, and goes on being freed and retried
	case err != nil:
		r.failed(err)
	default:
		r.succeeded()
	}
	return result, err
}

// try writes the difference to want.
func (r *Reconciler) try(want *State) (int, error) {
	r.paused = false
	want = want.within(r.dp.Limits())
	if err := want.Fits(r.dp.Limits()); err != nil {
		return 0, err
	}
	plan, err := r.diff(want)
	if err != nil {
		var limit *LimitError
		if !errors.As(err, &limit) {
			r.want, r.dirty = want, true
		}
		return 0, err
	}
	r.want = want
	return r.write(plan, want)
}

// sync reads the maps if what they hold is not known.
func (r *Reconciler) sync() error {
	if r.have != nil {
		return nil
	}
	now := time.Now()
	dump, err := r.dp.Dump()
	if err != nil {
		return fmt.Errorf("read the maps: %w", err)
	}
	// What nothing names counts as free from here on.
	if err := r.dp.Barrier(); err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	r.have = NewHave(dump, r.dp.Limits(), now)
	r.dirty = true
	r.count(func(s *Stats) { s.Resyncs++; s.Barriers++ })
	return nil
}

// refresh reads cgroups again.
func (r *Reconciler) refresh() error {
	now := time.Now()
	cgroups, err := r.dp.Cgroups()
	if err != nil {
		return fmt.Errorf("read cgroups: %w", err)
	}
	r.have.refresh(cgroups, now)
	return nil
}

// diff compares want with the maps. Where what is replaced leaves no room, what
// waits for a barrier is freed first.
func (r *Reconciler) diff(want *State) (Plan, error) {
	if err := r.sync(); err != nil {
		return Plan{}, err
	}
	if want.Walked.After(r.walked) {
		if err := r.refresh(); err != nil {
			return Plan{}, err
		}
		r.walked = want.Walked
	}
	plan, err := Diff(r.have, want)
	var limit *LimitError
	if errors.As(err, &limit) && limit.Change && r.drain() {
		plan, err = Diff(r.have, want)
	}
	return plan, err
}

// write does a plan's writes. r.dirty stays until there is nothing to free.
func (r *Reconciler) write(plan Plan, want *State) (int, error) {
	r.dirty = r.dirty || len(plan.Writes) > 0 || len(plan.After) > 0
	r.keep(plan)
	barriers := plan.Barriers
	for i, w := range plan.Writes {
		for len(barriers) > 0 && barriers[0] <= i {
			barriers = barriers[1:]
			if err := r.dp.Barrier(); err != nil {
				r.lose()
				return i, fmt.Errorf("barrier: %w", err)
			}
			r.count(func(s *Stats) { s.Barriers++ })
		}
		if err := r.apply(w); err != nil {
			r.lose()
			return i, fmt.Errorf("write %d of %d: %w", i+1, len(plan.Writes), err)
		}
	}
	r.have.settle(plan, want)
	return len(plan.Writes), nil
}

// apply does one write. The kernel adds and deletes cgroups by itself, so a
// cgroup may be there already, or be gone.
func (r *Reconciler) apply(w bpf.Write) error {
	err := r.dp.Apply(w)
	if put, ok := w.(bpf.PutCgroup); ok && errors.Is(err, bpf.ErrExist) {
		w = bpf.SetCgroup(put)
		err = r.dp.Apply(w)
	}
	if set, ok := w.(bpf.SetCgroup); ok && errors.Is(err, bpf.ErrNotExist) {
		w, err = bpf.DelCgroup{ID: set.ID}, nil
	}
	if err != nil {
		return err
	}
	r.have.write(w)
	r.count(func(s *Stats) { s.Writes++ })
	return nil
}

// lose forgets what the maps hold: an error says that it is not certain.
func (r *Reconciler) lose() {
	r.have, r.dirty = nil, true
	if r.grace != nil {
		r.grace.covers, r.grace.limbo = nil, 0
	}
}

// again retries what failed.
func (r *Reconciler) again() {
	if r.want == nil {
		if err := r.sync(); err != nil {
			r.failed(err)
		}
		return
	}
	if _, err := r.try(r.want); err != nil {
		r.failed(err)
		return
	}
	r.succeeded()
}

func (r *Reconciler) succeeded() {
	r.retry.Stop()
	r.delay = retryFirst
	r.count(func(s *Stats) {
		s.LastError, s.LastSuccess = "", time.Now()
	})
}

// failed has what failed tried again, later each time.
func (r *Reconciler) failed(err error) {
	r.erred(err)
	r.paused = true
	r.log.Warn("reconcile failed, retrying", "error", err, "in", r.delay)
	r.retry.Reset(r.delay)
	r.delay = min(2*r.delay, retryLast)
}

func (r *Reconciler) erred(err error) {
	r.count(func(s *Stats) {
		s.Errors++
		s.LastError = err.Error()
	})
}
