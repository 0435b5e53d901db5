package bpf

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cilium/ebpf/ringbuf"
)

// Failure is a connect to a VIP that the kernel saw fail in the daemon's network
// namespace: a reason to look at the backend, never a verdict.
type Failure struct {
	VIP     string
	Backend netip.AddrPort
	Err     syscall.Errno // 0: the caller gave up after retransmits
	Time    time.Duration // CLOCK_MONOTONIC
}

// rearm is how long after a failure of a backend the next one is reported: what
// happens in between is one reason to look. So there are never more reports than
// backends in this time, whatever the callers do.
const rearm = 100 * time.Millisecond

// FailureReader reads failures. They are lost, and counted in Stats.FailuresLost,
// while nobody does and the buffer is full.
type FailureReader struct {
	d        *Datapath
	ring     *ringbuf.Reader
	reported []slicelbSlbFailure // not yet armed again, in the order of their time
	due      []time.Time         // of each
}

// Failures opens the reports for backends whose VIPs are passive; the hook
// SockOps makes them. There may be one reader at a time.
func (d *Datapath) Failures() (*FailureReader, error) {
	if err := d.acquire(); err != nil {
		return nil, err
	}
	defer d.release()
	ring, err := ringbuf.NewReader(d.maps[slicelbMapFailures])
	if err != nil {
		return nil, fmt.Errorf("open failures: %w", err)
	}
	// Reports that went to a process before this one.
	for i := range d.backendTraits {
		arm(&d.backendTraits[i])
	}
	return &FailureReader{d: d, ring: ring}, nil
}

// arm has a backend's next failure reported.
func arm(w *uint64) {
	if atomic.LoadUint64(w)&traitReported != 0 {
		atomic.AndUint64(w, ^uint64(traitReported))
	}
}

// Read waits for the next failure of a backend that is still there; io.EOF after
// Close, of the reader or of the Datapath. One goroutine calls it.
func (r *FailureReader) Read() (Failure, error) {
	for {
		r.ring.SetDeadline(time.Time{})
		if len(r.due) > 0 {
			r.ring.SetDeadline(r.due[0])
		}
		record, err := r.ring.Read()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if err := r.again(time.Now()); err != nil {
				return Failure{}, io.EOF
			}
			continue
		case errors.Is(err, ringbuf.ErrClosed):
			return Failure{}, io.EOF
		case err != nil:
			return Failure{}, fmt.Errorf("read failure: %w", err)
		}
		var f slicelbSlbFailure
		if !decodeRecord(record.RawSample, &f) {
			continue
		}
		now := time.Now()
		r.reported, r.due = append(r.reported, f), append(r.due, now.Add(rearm))
		if err := r.again(now); err != nil {
			return Failure{}, io.EOF
		}
		if out, ok := r.d.failure(f); ok {
			return out, nil
		}
	}
}

// again arms what is due.
func (r *FailureReader) again(now time.Time) error {
	if err := r.d.acquire(); err != nil {
		return err
	}
	defer r.d.release()
	n := 0
	for ; n < len(r.due) && !r.due[n].After(now); n++ {
		if index := r.reported[n].Backend; int(index) < len(r.d.backendTraits) {
			arm(&r.d.backendTraits[index])
		}
	}
	r.reported, r.due = r.reported[n:], r.due[n:]
	return nil
}

// failure puts names to a report; false: the backend has gone.
func (d *Datapath) failure(f slicelbSlbFailure) (Failure, bool) {
	if d.acquire() != nil {
		return Failure{}, false
	}
	defer d.release()
	d.write.Lock()
	defer d.write.Unlock()
	if int(f.Backend) >= len(d.backends) {
		return Failure{}, false
	}
	b := decodeBackend(d.backends[f.Backend])
	if b.Gen != f.BackendGen || int(b.Cell) >= len(d.cellInfos) {
		return Failure{}, false
	}
	return Failure{
		VIP: decodeCellInfo(d.cellInfos[b.Cell]).VIP, Backend: b.Addr, Err: syscall.Errno(f.Error), Time: time.Duration(f.TimeNs),
	}, true
}

// Close ends a Read that waits.
func (r *FailureReader) Close() error { return r.ring.Close() }
