package unitwatch

import (
	"sync"
	"time"
)

const (
	maxUnits = 1024
	// A reload that never ends: signals are listened to again after this.
	reloadTimeout = 2 * time.Minute
)

// inbox collects what the bus said since the watcher looked last. It is bounded:
// signals only mark units dirty, and too many of them mark everything dirty.
type inbox struct {
	mu        sync.Mutex
	units     map[string]struct{}
	resync    string // cause; "" = none
	mode      Mode
	cause     string
	reloadEnd time.Time // not zero: systemd is reloading, until then at most
	reloads   uint64
	wake      chan struct{} // cap 1
	now       func() time.Time
}

func newInbox() *inbox {
	return &inbox{units: map[string]struct{}{}, cause: "not yet connected to the bus", wake: make(chan struct{}, 1), now: time.Now}
}

// mail is what an inbox held.
type mail struct {
	units   []string
	resync  string
	mode    Mode
	cause   string
	reloads uint64
}

func (b *inbox) take() mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := mail{resync: b.resync, mode: b.mode, cause: b.cause, reloads: b.reloads}
	for u := range b.units {
		m.units = append(m.units, u)
	}
	clear(b.units)
	b.resync = ""
	return m
}

func (b *inbox) notify() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// unit marks a unit dirty; false if too many are. While systemd reloads, its
// signals say nothing: each unit is removed and made anew on paper alone.
func (b *inbox) unit(name string) (ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.reloadEnd.IsZero() && b.now().Before(b.reloadEnd) {
		return true
	}
	if len(b.units) >= maxUnits {
		if _, known := b.units[name]; !known {
			b.resync = "too many signals"
			return false
		}
	}
	b.units[name] = struct{}{}
	b.notify()
	return true
}

func (b *inbox) reloading(active bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if active {
		b.reloadEnd = b.now().Add(reloadTimeout)
		return
	}
	b.reloadEnd = time.Time{}
	b.reloads++
	b.resync = "systemd reloaded"
	b.notify()
}

// state sets the mode; resync "" leaves the directories alone.
func (b *inbox) state(mode Mode, cause, resync string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mode, b.cause = mode, cause
	b.reloadEnd = time.Time{}
	if resync != "" {
		b.resync = resync
	}
	b.notify()
}
