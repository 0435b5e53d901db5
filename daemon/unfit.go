package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slicelb/slicelb/lb"
)

// compileError is why no state can be made of a configuration. Trying again changes
// nothing.
type compileError struct{ error }

func (e *compileError) Unwrap() error { return e.error }

// broken is a source that no state can be made of.
type broken struct {
	of  *source
	err error
}

// unfit is why the kernel cannot be given what is to run, now or later: it does not fit
// the tables, or no state can be made of it; nil: it can be, or nobody has tried.
// Nothing was written then.
func unfit(err error) error {
	var limit *lb.LimitError
	var broken *compileError
	switch {
	case errors.As(err, &limit):
		return fmt.Errorf("the configuration does not fit: %w", limit)
	case errors.As(err, &broken):
		return fmt.Errorf("the configuration cannot be used: %w", broken)
	}
	return nil
}

// fallBack has a start serve what the process before did, where the kernel cannot be
// given the files: the last good configuration, or, where none is known or the kernel
// cannot be given that either, what the kernel has.
func (d *daemon) fallBack(ctx context.Context, unfit error) {
	good := d.fallback
	d.fallback = nil
	if !d.running.lastGood {
		d.failing, d.failed, d.reloadErr, d.files = "start", time.Now(), unfit, d.running
	}
	if good != nil {
		d.log.Error("the kernel cannot be given the files: serving the last good configuration", "loaded", good.Loaded, "err", unfit)
		if err := d.restore(good); err != nil {
			d.log.Error("last good configuration", "err", err)
		}
		if d.running != d.files {
			d.follow(d.running)
			d.applyErr, d.applied = nil, false // the next snapshot
			return
		}
	}
	d.standBy(ctx, unfit)
}

// standBy leaves the kernel what it has, and has the files, where they can be read, tried
// again with whatever changes.
func (d *daemon) standBy(ctx context.Context, unfit error) {
	if err := d.adoptOnly(ctx); err != nil {
		d.note(err)
		return // at the next tick
	}
	d.log.Error("no last good configuration fits: what the kernel has goes on", "err", unfit)
	if d.state != nil {
		// The process after this one must not take it for one that was served.
		if err := d.state.Close(); err != nil {
			d.log.Warn("last good configuration", "err", err)
		}
		d.state = nil
	}
	switch {
	case d.files == nil: // they have errors: there is nothing to try
		d.running = nil
		d.follow(&source{tree: emptyTree()})
		d.note(nil)
	case d.running != d.files:
		d.use(d.files.with(d.units))
		d.backends.watch(d.running, nil)
		d.follow(d.running)
	}
	d.nowReady(ctx)
}

// standsBy reports whether the kernel still has what the process before left, because
// nothing could take its place.
func (d *daemon) standsBy() bool { return d.ready && d.files != nil && !d.running.lastGood }

// follow has the watcher look for the cgroups of src.
func (d *daemon) follow(src *source) {
	d.snap = nil
	if d.watcher != nil {
		d.watcher.SetTree(src.tree)
	}
}

// settled takes note that the kernel has what runs. Where it did not at the start, the
// next process may know it for good from here on.
func (d *daemon) settled(ctx context.Context) {
	if !d.standsBy() {
		return
	}
	d.files = nil
	if unfit(d.reloadErr) != nil {
		d.failed, d.reloadErr = time.Time{}, nil
	}
	d.kept.unsealed = true
	d.keep(ctx, false)
}

// whyLastGood is what the files lack while the last good configuration is served.
func (d *daemon) whyLastGood() string {
	var limit *lb.LimitError
	var broken *compileError
	switch {
	case errors.As(d.reloadErr, &limit):
		return "the files do not fit the kernel's tables"
	case errors.As(d.reloadErr, &broken):
		return "the files cannot be used"
	}
	return "the files have errors"
}
