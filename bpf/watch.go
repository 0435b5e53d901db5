package bpf

import (
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// WatchLease is how long what Watch asked for is told; it is to be asked for
// again before. So a process that is killed while somebody watches leaves the
// programs at their former pace a moment later.
const WatchLease = 3 * time.Second

// anyGroup is SLB_WATCH_ANY_GROUP.
const anyGroup = 1<<32 - 1

// Watch is what is to be told. Refusals are told whatever it says.
type Watch struct {
	Told     []Told
	AnyGroup bool
	Group    uint32   // unless AnyGroup
	Cells    []uint32 // default cells, two at most; none = any
}

// watchWords are the programs' globals.
type watchWords struct {
	until, told, group, cells *uint64
}

// Watch has decisions told for WatchLease; with nil, none but refusals. From one
// wish to the next the programs tell what either of them wants, at least.
func (d *Datapath) Watch(w *Watch) error {
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.release()
	words := &d.watch
	if w == nil {
		atomic.StoreUint64(words.until, 0)
		return nil
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	told, group, cells := uint64(0), uint64(anyGroup), uint64(0)
	for _, t := range w.Told {
		told |= 1 << t
	}
	if !w.AnyGroup {
		group = uint64(w.Group)
	}
	for i, cell := range w.Cells {
		if i > 1 {
			cells = 0
			break
		}
		cells |= uint64(cell) << (32 * i)
	}
	same := atomic.LoadUint64(words.told) == told && atomic.LoadUint64(words.group) == group && atomic.LoadUint64(words.cells) == cells
	if !same {
		// Everything in between: each store narrows from there.
		atomic.StoreUint64(words.told, ^uint64(0))
		atomic.StoreUint64(words.group, anyGroup)
		atomic.StoreUint64(words.cells, 0)
	}
	atomic.StoreUint64(words.until, uint64(ts.Nano())+uint64(WatchLease))
	if !same {
		atomic.StoreUint64(words.told, told)
		atomic.StoreUint64(words.group, group)
		atomic.StoreUint64(words.cells, cells)
	}
	return nil
}

// Suppressed are the refusals that were not told, by group: more than one may
// say of itself. They grow for as long as the maps live.
func (d *Datapath) Suppressed() map[uint32]uint64 {
	out := map[uint32]uint64{}
	if d.acquire() != nil {
		return out
	}
	defer d.release()
	for i := range d.budgets {
		if n := atomic.LoadUint64(&d.budgets[i].Suppressed); n != 0 {
			out[uint32(i)] = n
		}
	}
	return out
}
