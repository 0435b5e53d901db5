package bpf

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// LatencyBuckets is how many there are.
const LatencyBuckets = len(slicelbSlbLatency{}.Bucket)

// latencyShift is SLB_LATENCY_SHIFT.
const latencyShift = 5

// Latency counts how long TCP connects to a VIP took. The numbers wrap: what
// counts is the difference of two.
type Latency [LatencyBuckets]uint32

// LatencyBound is what bucket i's connects took less than; the last bucket's is
// the longest duration there is.
func LatencyBound(i int) time.Duration {
	if i == LatencyBuckets-1 {
		return math.MaxInt64
	}
	return time.Microsecond << (i + latencyShift)
}

// Minus is what was added since before.
func (l Latency) Minus(before Latency) Latency {
	for i := range l {
		l[i] -= before[i]
	}
	return l
}

// Plus adds another's.
func (l Latency) Plus(o Latency) Latency {
	for i := range l {
		l[i] += o[i]
	}
	return l
}

// Time has connects timed for WatchLease: it is to be asked for again before.
// The optional hook SockOps sees the answers.
func (d *Datapath) Time(on bool) error {
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.release()
	var until uint64
	if on {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			return fmt.Errorf("time connects: %w", err)
		}
		until = uint64(ts.Nano()) + uint64(WatchLease)
	}
	atomic.StoreUint64(d.timeUntil, until)
	return nil
}

// Latencies are those of the VIPs of which any was timed, by default cell.
func (d *Datapath) Latencies() map[uint32]Latency {
	out := map[uint32]Latency{}
	if d.acquire() != nil {
		return out
	}
	defer d.release()
	d.write.Lock()
	cells := d.defaultCells()
	d.write.Unlock()
	for _, i := range cells {
		var l Latency
		for j := range l {
			l[j] = atomic.LoadUint32(&d.latencies[i].Bucket[j])
		}
		if l != (Latency{}) {
			out[i] = l
		}
	}
	return out
}
