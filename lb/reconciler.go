package lb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/slicelb/slicelb/bpf"
)

// Datapath is the maps. *bpf.Datapath is the real one.
type Datapath interface {
	// Dump reads everything; Cgroups reads the one table that the kernel writes
	// to as well. Both may be kept and changed by the caller.
	Dump() (*bpf.Dump, error)
	Cgroups() (map[uint64]bpf.Rule, error)

	// Apply does one write. bpf.ErrExist and bpf.ErrNotExist say that the key
	// of a Put is there, or that of a Set is not.
	Apply(bpf.Write) error

	// Barrier returns when every program that ran when it was called has ended.
	// It is called beside Apply and Dump, from another goroutine.
	Barrier() error

	Limits() bpf.Limits
}

// Result is what one Reconcile did.
type Result struct {
	Writes   int
	Duration time.Duration // from taking the state to the last write
	Resynced bool          // the maps were read again first
}

// Stats is what the reconciler has done since it was made.
type Stats struct {
	Reconciles   uint64
	Writes       uint64 // frees included
	Resyncs      uint64
	Barriers     uint64
	Errors       uint64
	LastDuration time.Duration
	LastError    string    // "" after a success
	LastSuccess  time.Time // zero: never
	Pending      int       // what waits to be freed
}

const (
	retryFirst = 50 * time.Millisecond
	retryLast  = 5 * time.Second
)

// Reconciler writes the maps. Run must be running for Reconcile to return.
type Reconciler struct {
	dp  Datapath
	log *slog.Logger

	requests chan request
	settles  chan chan error

	// Of Run's goroutine alone.
	have   *Have
	want   *State // the last that fitted
	walked time.Time
	grace  *grace
	dirty  bool // want is not in the maps yet, or there may be something to free
	paused bool // by a failure, until the retry or the next state
	wait   []chan error
	retry  *time.Timer
	delay  time.Duration

	mu    sync.Mutex
	stats Stats
}

type request struct {
	want  *State
	reply chan reply
}

type reply struct {
	Result
	err error
}

// grace is a barrier on its way and what may be freed when it has passed.
type grace struct {
	done   chan error
	covers map[string]bool // of Plan.After, by text: garbage since before the barrier began
	limbo  int             // so many of Have.limbo
}

// NewReconciler starts nothing.
func NewReconciler(dp Datapath, log *slog.Logger) *Reconciler {
	return &Reconciler{
		dp: dp, log: log,
		requests: make(chan request),
		settles:  make(chan chan error),
		delay:    retryFirst,
	}
}

// Reconcile takes the maps to want and returns after the last write that a call
// can notice. What was replaced is freed later: see Settle.
//
// A state that does not fit the tables gives a *LimitError, and nothing is
// written. After any other error the maps may hold a part of want, each part
// valid; the reconciler goes on trying until it succeeds or is given another.
func (r *Reconciler) Reconcile(ctx context.Context, want *State) (Result, error) {
	req := request{want, make(chan reply, 1)}
	select {
	case r.requests <- req:
	case <-ctx.Done():
		return Result{}, fmt.Errorf("reconcile: %w", ctx.Err())
	}
	select {
	case out := <-req.reply:
		return out.Result, out.err
	case <-ctx.Done():
		return Result{}, fmt.Errorf("reconcile: %w", ctx.Err())
	}
}

// Settle returns when no program uses anything any more that earlier calls of
// Reconcile replaced, and all of it is freed.
func (r *Reconciler) Settle(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case r.settles <- done:
	case <-ctx.Done():
		return fmt.Errorf("settle: %w", ctx.Err())
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("settle: %w", ctx.Err())
	}
}

// Stats is a snapshot.
func (r *Reconciler) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

func (r *Reconciler) count(f func(*Stats)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.stats)
}

// Run reads the maps and serves Reconcile until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	r.retry = time.NewTimer(0)
	if !r.retry.Stop() {
		<-r.retry.C
	}
	defer r.end()
	// What the maps hold before the first walk over cgroupfs begins and the walk
	// does not find is stale.
	if err := r.sync(); err != nil {
		r.failed(err)
	}
	for {
		r.collect()
		r.wake()
		var passed chan error
		if r.grace != nil {
			passed = r.grace.done
		}
		select {
		case <-ctx.Done():
			return nil
		case req := <-r.requests:
			result, err := r.reconcile(req.want)
			req.reply <- reply{result, err}
		case done := <-r.settles:
			r.wait = append(r.wait, done)
		case err := <-passed:
			r.passed(err)
		case <-r.retry.C:
			r.again()
		}
	}
}

// end waits for a barrier on its way: Run leaves no goroutine behind.
func (r *Reconciler) end() {
	r.retry.Stop()
	if r.grace != nil {
		<-r.grace.done
		r.grace = nil
	}
	for _, done := range r.wait {
		done <- errors.New("settle: the reconciler has ended")
	}
	r.wait = nil
}

// wake answers Settle when nothing is left to do.
func (r *Reconciler) wake() {
	pending := 0
	if r.have != nil {
		pending = len(r.have.limbo)
	}
	if r.grace != nil {
		pending = max(pending, len(r.grace.covers), 1)
	}
	r.count(func(s *Stats) { s.Pending = pending })
	if r.grace != nil || r.dirty && r.want != nil || pending > 0 {
		return
	}
	for _, done := range r.wait {
		done <- nil
	}
	r.wait = nil
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

// reconcile makes want the state to keep, if it fits.
func (r *Reconciler) reconcile(want *State) (Result, error) {
	start := time.Now()
	result := Result{Resynced: r.have == nil}
	n, err := r.try(want)
	result.Writes, result.Duration = n, time.Since(start)
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
	if err := want.fits(r.dp.Limits()); err != nil {
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

// drain frees all that can be, waiting for barriers; it reports whether there
// was anything.
func (r *Reconciler) drain() bool {
	freed := false
	r.dirty = r.want != nil
	for r.have != nil {
		r.collect()
		if r.grace == nil {
			break
		}
		freed = true
		if err := <-r.grace.done; err != nil {
			r.passed(err)
			break
		}
		r.passed(nil)
	}
	return freed && r.have != nil
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

// keep takes from what a barrier on its way covers whatever the plan uses again.
func (r *Reconciler) keep(plan Plan) {
	if r.grace == nil || len(r.grace.covers) == 0 {
		return
	}
	still := make(map[string]bool, len(r.grace.covers))
	for _, w := range plan.After {
		if s := w.String(); r.grace.covers[s] {
			still[s] = true
		}
	}
	r.grace.covers = still
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

// collect looks for what can be freed and sets a barrier on its way for it.
func (r *Reconciler) collect() {
	if r.grace != nil || r.have == nil || r.want == nil || !r.dirty || r.paused {
		return
	}
	plan, err := Diff(r.have, r.want)
	if err != nil {
		r.failed(err)
		return
	}
	if len(plan.Writes) > 0 {
		if _, err := r.write(plan, r.want); err != nil {
			r.failed(err)
			return
		}
		if plan, err = Diff(r.have, r.want); err != nil {
			r.failed(err)
			return
		}
	}
	r.have.settle(plan, r.want)
	if len(plan.After) == 0 && len(r.have.limbo) == 0 {
		r.dirty = false
		return
	}
	g := &grace{done: make(chan error, 1), covers: map[string]bool{}, limbo: len(r.have.limbo)}
	for _, w := range plan.After {
		g.covers[w.String()] = true
	}
	r.grace = g
	go func() { g.done <- r.dp.Barrier() }()
}

// passed frees what the barrier covers and is still unused.
func (r *Reconciler) passed(err error) {
	g := r.grace
	r.grace = nil
	if err != nil {
		r.failed(fmt.Errorf("barrier: %w", err))
		return
	}
	r.count(func(s *Stats) { s.Barriers++ })
	if r.have == nil {
		return
	}
	r.have.release(g.limbo)
	if err := r.free(g); err != nil {
		r.failed(err)
	}
}

func (r *Reconciler) free(g *grace) error {
	if len(g.covers) == 0 {
		return nil
	}
	// The kernel copies groups and nodes from expect into cgroups, at any time
	// until this barrier.
	if err := r.refresh(); err != nil {
		r.lose()
		return err
	}
	plan, err := Diff(r.have, r.want)
	if err != nil {
		return err
	}
	for _, w := range plan.After {
		if !g.covers[w.String()] {
			continue
		}
		if err := r.apply(w); err != nil {
			r.lose()
			return fmt.Errorf("free: %w", err)
		}
	}
	return nil
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
