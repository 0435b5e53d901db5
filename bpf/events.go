package bpf

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cilium/ebpf/ringbuf"
)

// EventKind says what happened to a cgroup directory.
type EventKind uint32

const (
	Mkdir EventKind = EventKind(slicelbSlbEventKindSLB_EVENT_MKDIR)
	Rmdir EventKind = EventKind(slicelbSlbEventKindSLB_EVENT_RMDIR)
)

// Event is a hint that a directory near an anchor was made or removed. It says
// where to look, never what is there.
type Event struct {
	Kind   EventKind
	ID     uint64        // the directory's cgroup id
	Parent uint64        // its parent's
	Mapped bool          // the kernel inserted or deleted its entry
	Time   time.Duration // CLOCK_MONOTONIC
}

// EventReader reads events; they are lost, and counted in Stats.EventsLost,
// while nobody does.
type EventReader struct {
	ring *ringbuf.Reader
}

// Events opens the ring buffer. There may be one reader at a time.
func (d *Datapath) Events() (*EventReader, error) {
	if err := d.acquire(); err != nil {
		return nil, err
	}
	defer d.release()
	r, err := ringbuf.NewReader(d.maps[slicelbMapEvents])
	if err != nil {
		return nil, fmt.Errorf("open events: %w", err)
	}
	return &EventReader{ring: r}, nil
}

// Read waits for the next event; io.EOF after Close.
func (r *EventReader) Read() (Event, error) {
	for {
		record, err := r.ring.Read()
		if errors.Is(err, ringbuf.ErrClosed) {
			return Event{}, io.EOF
		}
		if err != nil {
			return Event{}, fmt.Errorf("read event: %w", err)
		}
		if e, ok := decodeEvent(record.RawSample); ok {
			return e, nil
		}
	}
}

// Close ends a Read that waits.
func (r *EventReader) Close() error { return r.ring.Close() }

func decodeEvent(sample []byte) (Event, bool) {
	var e slicelbSlbCgroupEvent
	if !decodeRecord(sample, &e) {
		return Event{}, false
	}
	return Event{
		Kind:   EventKind(e.Kind),
		ID:     e.Id,
		Parent: e.Parent,
		Mapped: e.Mapped != 0,
		Time:   time.Duration(e.TimeNs),
	}, true
}
