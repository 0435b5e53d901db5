package bpf

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// recounts is what Recount remembers from one time to the next: the backends
// that it disagreed with.
type recounts struct {
	mu  sync.Mutex
	off map[uint32]drift
}

// drift is by how much a backend's count is too high at least, or too low where
// it is negative.
type drift struct {
	by  int64
	gen uint32
}

// Live is how many sockets a VIP sent to each backend whose last descriptor is
// open: refused, reset and disconnected ones until they are closed or connected
// again, without MPTCP's. Backends that have none are left out. It costs no more
// than reading memory.
func (d *Datapath) Live() (map[uint32]uint64, error) {
	if err := d.acquire(); err != nil {
		return nil, err
	}
	defer d.release()
	return d.liveCounts(), nil
}

func (d *Datapath) liveCounts() map[uint32]uint64 {
	out := make(map[uint32]uint64)
	for i := range d.backendCells {
		if n := d.backendCounters[i].open(); n > 0 && d.living(uint32(i)) {
			out[uint32(i)] = n
		}
	}
	return out
}

// LiveOf is Live of one backend: 0 where its index names none that is in use.
func (d *Datapath) LiveOf(index uint32) (uint64, error) {
	if err := d.acquire(); err != nil {
		return 0, err
	}
	defer d.release()
	if index >= uint32(len(d.backendCells)) || !d.living(index) {
		return 0, nil
	}
	return d.backendCounters[index].open(), nil
}

// living says whether programs count for the backend: its word is what they ask.
func (d *Datapath) living(index uint32) bool {
	return decodeBackendCell(atomic.LoadUint64(&d.backendCells[index])).State != BackendFree
}

// open is the live count; one that is below zero, until a recount, is zero.
func (c *slicelbSlbBackendCounters) open() uint64 { return uint64(max(0, atomic.LoadInt64(&c.Live))) }

// Recount walks what all sockets remember, in every network namespace, and
// corrects the live counts that are off in the same direction twice in a row, by
// as much as both times show. What opens and closes meanwhile is allowed for, so
// that a count that is right stays so under any load. It returns how many it
// corrected. A socket costs some 100 ns; nothing waits for it.
func (d *Datapath) Recount() (corrected int, err error) {
	if err := d.acquire(); err != nil {
		return 0, err
	}
	defer d.release()
	r := &d.recounts
	r.mu.Lock()
	defer r.mu.Unlock()

	off, err := d.drifts()
	if err != nil {
		return 0, fmt.Errorf("recount: %w", err)
	}
	for i, is := range off {
		was, twice := r.off[i]
		if !twice || was.gen != is.gen || (was.by < 0) != (is.by < 0) {
			continue
		}
		by := was.by
		if magnitude(is.by) < magnitude(by) {
			by = is.by
		}
		if d.correct(i, is.gen, -by) {
			corrected++
		}
		delete(off, i)
	}
	r.off = off
	return corrected, nil
}

// correct adds to a count, while the index is the same backend's.
func (d *Datapath) correct(i, gen uint32, by int64) bool {
	d.write.Lock() // SetBackend begins the next one's count at zero
	defer d.write.Unlock()
	if c := decodeBackendCell(atomic.LoadUint64(&d.backendCells[i])); c.Gen != gen || c.State == BackendFree {
		return false
	}
	atomic.AddInt64(&d.backendCounters[i].Live, by)
	return true
}

// drifts are the counts that are off. A first walk finds those that may be; only
// theirs are worth the reading of what came meanwhile, in a second one.
func (d *Datapath) drifts() (map[uint32]drift, error) {
	suspects, err := d.suspects(nil)
	if err != nil || len(suspects) == 0 {
		return nil, err
	}
	was := make(map[uint32]BackendCounters, len(suspects))
	for i := range suspects {
		was[i] = d.backendCounters[i].read()
	}
	if suspects, err = d.suspects(suspects); err != nil {
		return nil, err
	}
	off := make(map[uint32]drift)
	for i, s := range suspects {
		is := d.backendCounters[i].read()
		_, gen := halves(atomic.LoadUint64(&d.backendCells[i]))
		if by := driftOf(s.before, s.after, s.walked, int64(is.Connects-was[i].Connects)); by != 0 {
			off[i] = drift{by, gen}
		}
	}
	return off, nil
}

// suspect is a count before and after a walk, and what the walk counted.
type suspect struct{ before, after, walked int64 }

// suspects are the backends, of those given or of all, of which a walk counts
// less or more than there were at its begin and at its end.
func (d *Datapath) suspects(of map[uint32]suspect) (map[uint32]suspect, error) {
	before := make([]int64, len(d.backendCounters))
	for i := range d.backendCounters {
		before[i] = atomic.LoadInt64(&d.backendCounters[i].Live)
		atomic.StoreInt64(&d.backendCounters[i].Recounted, 0)
	}
	if err := d.walkOrigins(); err != nil {
		return nil, err
	}
	out := make(map[uint32]suspect)
	for i := range d.backendCounters {
		if _, asked := of[uint32(i)]; of != nil && !asked {
			continue
		}
		if !d.living(uint32(i)) {
			continue // neither the programs nor a walk count for it any more
		}
		s := suspect{before[i], atomic.LoadInt64(&d.backendCounters[i].Live), atomic.LoadInt64(&d.backendCounters[i].Recounted)}
		if s.walked < min(s.before, s.after) || s.walked > max(s.before, s.after) {
			out[uint32(i)] = s
		}
	}
	return out, nil
}

// driftOf is by how much a count was surely off: it was before and is now, n were
// counted in between, while came sockets at most were sent to the backend. What
// came or went during the walk may have been counted or not.
func driftOf(before, now, n, came int64) int64 {
	came = max(0, came)
	went := max(0, came-(now-before))
	switch {
	case n > before+came:
		return before + came - n
	case n < before-went:
		return before - went - n
	}
	return 0
}

func magnitude(n int64) int64 { return max(n, -n) }

// walkOrigins runs slb_recount, which writes nothing, for every socket that remembers
// something.
func (d *Datapath) walkOrigins() error {
	return iterate(d.programs[slicelbProgSlbRecount], d.maps[slicelbMapOrigins], func(*sweepSlbDoomedSocket) {})
}
