package daemon

import (
	"errors"
	"fmt"
	"time"

	"github.com/slicelb/slicelb/lb"
)

// unfit is why what is to run does not fit the kernel's tables; nil: it does, or
// nobody has tried. Nothing was written then.
func (d *daemon) unfit() error {
	var limit *lb.LimitError
	if !d.ready && errors.As(d.applyErr, &limit) {
		return fmt.Errorf("the configuration does not fit: %w", limit)
	}
	return nil
}

// fallBack has a start serve what the process before did, where the files do not
// fit: the last good configuration, or, where none is known, what the kernel has.
func (d *daemon) fallBack(unfit error) {
	good := d.fallback
	d.fallback = nil
	if !d.running.lastGood {
		d.failed, d.reloadErr = time.Now(), unfit
	}
	d.running, d.snap = nil, nil
	if good != nil {
		d.log.Error("the files do not fit the kernel's tables: serving the last good configuration", "loaded", good.Loaded, "err", unfit)
		if err := d.restore(good); err != nil {
			d.log.Error("last good configuration", "err", err)
		}
	}
	tree := emptyTree()
	if d.running != nil {
		tree = d.running.tree
	} else {
		d.log.Error("no last good configuration fits: what the kernel has goes on", "err", unfit)
		if d.state != nil {
			// The process after this one must not take it for one that was served.
			if err := d.state.Close(); err != nil {
				d.log.Warn("last good configuration", "err", err)
			}
			d.state = nil
		}
	}
	if d.watcher != nil {
		d.watcher.SetTree(tree)
	}
	d.applyErr, d.applied = nil, false // the next tick, or the next snapshot
}

// whyLastGood is what the files lack while the last good configuration is served.
func (d *daemon) whyLastGood() string {
	if limit := (*lb.LimitError)(nil); errors.As(d.reloadErr, &limit) {
		return "the files do not fit the kernel's tables"
	}
	return "the files have errors"
}
