package unitwatch

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// UnitState is systemd's ActiveState of a unit that is not inactive, or UnitWaiting.
type UnitState uint8

const (
	UnitActive UnitState = iota + 1
	UnitReloading
	UnitActivating
	UnitDeactivating
	UnitFailed
	UnitWaiting // to be restarted: systemd calls it activating, and nothing of it runs
)

func (s UnitState) String() string {
	switch s {
	case UnitActive:
		return "active"
	case UnitReloading:
		return "reloading"
	case UnitActivating:
		return "activating"
	case UnitDeactivating:
		return "deactivating"
	case UnitFailed:
		return "failed"
	case UnitWaiting:
		return "auto-restart"
	}
	return "unknown"
}

// Unit is one unit as systemd said it stands.
type Unit struct {
	Name       string // its own, never an alias
	State      UnitState
	Sub        string    // systemd's finer word, "running"; other people's text
	StartJob   bool      // a job of systemd's starts it, when it has stopped or what it waits for has come
	Since      time.Time // when it was first seen to stand so, in this run
	Invocation string    // 32 hexadecimal digits, or "" while not known
}

// Units is every unit that one of Patterns names and that is not inactive, at
// one moment. It is immutable.
type Units struct {
	Patterns []string // that systemd was asked for
	List     []Unit   // by name
	Cause    string   // why systemd may say something else by now; "" = it was just asked
}

// SetUnits has the states of units followed: those that a pattern names, a
// unit's name in which "*" stands for anything. The next Units whose Patterns
// are these is complete. No patterns: nothing is asked.
func (w *Watcher) SetUnits(patterns []string) { w.bus.states.follow(patterns) }

// AskUnits has systemd asked how every unit of the patterns stands. The answer is a
// function that says whether systemd has answered, which is after the next Units where
// that says something else than the last.
func (w *Watcher) AskUnits() func() bool { return w.bus.states.askAll() }

// Units delivers the latest states; those that were not received are replaced
// by the next. Without a message bus nothing comes. It is never closed.
func (w *Watcher) Units() <-chan *Units { return w.bus.states.updates }

// MatchUnit reports whether a pattern of SetUnits names a unit.
func MatchUnit(pattern, unit string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == unit
	}
	if !strings.HasPrefix(unit, head) {
		return false
	}
	unit = unit[len(head):]
	for {
		part, more, another := strings.Cut(rest, "*")
		if !another {
			return strings.HasSuffix(unit, part)
		}
		i := strings.Index(unit, part)
		if i < 0 {
			return false
		}
		unit, rest = unit[i+len(part):], more
	}
}

// unitStates holds what is known of units. Signals mark; the bus's goroutine
// asks, and is the only one to call what stands below ask.
type unitStates struct {
	updates chan *Units   // cap 1
	wake    chan struct{} // cap 1

	mu       sync.Mutex
	patterns []string
	names    unitNames
	dirty    map[string]struct{}
	full     bool   // everything is dirty
	asked    uint64 // of askAll, the newest
	replied  uint64 // the newest that systemd has answered

	last  *Units
	known map[string]Unit
}

func newUnitStates() *unitStates {
	return &unitStates{
		updates: make(chan *Units, 1), wake: make(chan struct{}, 1),
		dirty: map[string]struct{}{}, known: map[string]Unit{},
	}
}

func (s *unitStates) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *unitStates) follow(patterns []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(patterns, s.patterns) {
		return
	}
	s.patterns = slices.Clone(patterns)
	s.names = newUnitNames(patterns)
	s.full = true
	s.poke()
}

// follows reports whether any unit's state is wanted.
func (s *unitStates) follows() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.patterns) > 0
}

// wants reports whether a pattern names the unit.
func (s *unitStates) wants(unit string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names.match(unit)
}

// mark has systemd asked about a unit, if it is one of ours.
func (s *unitStates) mark(unit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full || !s.names.match(unit) {
		return
	}
	if s.dirty[unit] = struct{}{}; len(s.dirty) > maxUnits {
		s.full = true
	}
	s.poke()
}

// markAll has systemd asked about every unit.
func (s *unitStates) markAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.patterns) > 0 {
		s.full = true
		s.poke()
	}
}

// askAll has systemd asked about every unit, and says when it has answered.
func (s *unitStates) askAll() func() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.patterns) == 0 {
		return func() bool { return true }
	}
	s.asked++
	s.full = true
	s.poke()
	n := s.asked
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.replied >= n
	}
}

// question is what systemd is to be asked next. What a signal marks from here
// on is asked for again.
type question struct {
	patterns []string // of everything
	ask      []string // patterns to ask for; none: there is nothing to ask
	full     bool     // ask names all that patterns do
	asked    uint64   // of askAll, the newest that this is the answer to
}

// ask takes the marks away. Many are a full question; for few, systemd is asked by name.
func (s *unitStates) ask() question {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := question{patterns: s.patterns, full: s.full || len(s.dirty) > maxByName}
	if q.full {
		q.ask, q.asked = s.names.broad, s.asked
	} else {
		q.ask = slices.Collect(maps.Keys(s.dirty))
	}
	clear(s.dirty)
	s.full = false
	return q
}

// failed has a question asked again, later, and says that the answer is old.
func (s *unitStates) failed(q question, cause string) {
	s.mu.Lock()
	if q.full {
		s.full = true
	} else {
		for _, u := range q.ask {
			s.dirty[u] = struct{}{}
		}
	}
	s.mu.Unlock()
	s.away(cause)
}

// away says that systemd cannot be asked: what is known stays.
func (s *unitStates) away(cause string) {
	if s.last != nil {
		s.publish(&Units{Patterns: s.last.Patterns, List: s.last.List, Cause: cause})
	}
}

// answered takes systemd's answer in.
func (s *unitStates) answered(q question, units []Unit, now time.Time) {
	got := map[string]Unit{}
	for _, u := range units {
		u.Since = now
		if before, ok := s.known[u.Name]; ok && before.State == u.State && (before.Invocation == u.Invocation || before.Invocation == "" || u.Invocation == "") {
			u.Since = before.Since
			if u.Invocation == "" {
				u.Invocation = before.Invocation
			}
		}
		got[u.Name] = u
	}
	if !q.full {
		asked := map[string]bool{}
		for _, name := range q.ask {
			asked[name] = true
		}
		for name, u := range s.known {
			if !asked[name] {
				got[name] = u
			}
		}
	}
	s.known = got
	out := &Units{Patterns: q.patterns, List: make([]Unit, 0, len(got))}
	for _, u := range got {
		out.List = append(out.List, u)
	}
	slices.SortFunc(out.List, func(a, b Unit) int { return strings.Compare(a.Name, b.Name) })
	s.publish(out)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replied = max(s.replied, q.asked)
}

// publish hands out what differs from the last.
func (s *unitStates) publish(u *Units) {
	if s.last != nil && s.last.Cause == u.Cause && slices.Equal(s.last.Patterns, u.Patterns) && slices.Equal(s.last.List, u.List) {
		return
	}
	s.last = u
	select {
	case <-s.updates:
	default:
	}
	s.updates <- u
}
