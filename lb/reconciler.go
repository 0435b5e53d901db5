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
	Left     int           // cgroups for whose entries there is no room
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
