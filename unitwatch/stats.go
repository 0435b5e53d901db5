package unitwatch

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Stats are counts since the watcher was made, and what is the case now.
type Stats struct {
	Mode  Mode
	Cause string // as in Snapshot

	Dirs, Members, Anchors, Pending int // in the last snapshot

	Hints        uint64 // received
	HintsIgnored uint64 // for directories that do not matter
	HintsLost    uint64 // differences that a periodic resync found and nothing had announced
	Overflows    uint64 // of any source; each made a resync

	Signals          uint64 // from systemd or the bus, well-formed
	ForgedSignals    uint64 // from anybody else
	MalformedSignals uint64 // oversized, or with another body than systemd's
	Unasked          uint64 // other messages that nobody here waits for
	Connects         uint64 // to the message bus, the first included
	Calls            uint64 // of systemd
	CallErrors       uint64

	Looks      uint64 // at single directories
	Walks      uint64 // of everything
	WalkErrors uint64
	Snapshots  uint64

	LastResync           time.Time
	LastResyncCause      string
	LastResyncDifference int // directories that came or went
	LastWalk             time.Duration
	Causes               map[string]uint64 // of the walks, of a handful of words
}

// counters are what several goroutines count.
type counters struct {
	hints, hintsIgnored, hintsLost, overflows atomic.Uint64
	signals, forged, malformed, unasked       atomic.Uint64
	connects, calls, callErrors               atomic.Uint64
	looks, walks, walkErrors, snapshots       atomic.Uint64

	mu   sync.Mutex
	last Stats // the fields that are no counters
}

func (c *counters) set(change func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.last)
}

func (c *counters) stats() Stats {
	c.mu.Lock()
	s := c.last
	s.Causes = maps.Clone(s.Causes)
	c.mu.Unlock()
	s.Hints, s.HintsIgnored, s.HintsLost, s.Overflows = c.hints.Load(), c.hintsIgnored.Load(), c.hintsLost.Load(), c.overflows.Load()
	s.Signals, s.ForgedSignals, s.MalformedSignals = c.signals.Load(), c.forged.Load(), c.malformed.Load()
	s.Unasked = c.unasked.Load()
	s.Connects, s.Calls, s.CallErrors = c.connects.Load(), c.calls.Load(), c.callErrors.Load()
	s.Looks, s.Walks, s.WalkErrors, s.Snapshots = c.looks.Load(), c.walks.Load(), c.walkErrors.Load(), c.snapshots.Load()
	return s
}
