package discover

import (
	"slices"
	"strings"
	"time"
)

// State is how a unit stands, by what it means for a backend.
type State uint8

const (
	Active       State = iota + 1 // takes connections
	Reloading                     // so does this
	Activating                    // no new ones
	Deactivating                  // no new ones
	Failed                        // down
	Waiting                       // to be restarted; down
)

func (s State) String() string {
	switch s {
	case Active:
		return "active"
	case Reloading:
		return "reloading"
	case Activating:
		return "activating"
	case Deactivating:
		return "deactivating"
	case Failed:
		return "failed"
	case Waiting:
		return "auto-restart"
	}
	return "unknown"
}

// Serves reports whether the unit takes connections.
func (s State) Serves() bool { return s == Active || s == Reloading }

// Runs reports whether there may be processes of the unit.
func (s State) Runs() bool { return s != Failed && s != Waiting }

// before orders states by how well a unit serves.
func (s State) before(o State) bool {
	order := []State{Active, Reloading, Deactivating, Activating, Waiting, Failed}
	return slices.Index(order, s) < slices.Index(order, o)
}

// Unit is a unit that is not inactive.
type Unit struct {
	Name  string
	State State
	Since time.Time // of the state, in this run
	Run   string    // tells one run from the next; "" = not known

	// StartJob is that systemd starts it, when it has stopped or what it waits for has come.
	StartJob bool
}

// Units is what is known of units. It is immutable.
type Units struct {
	Patterns []string // those that were asked for
	List     []Unit   // by name
	Cause    string   // why it may be out of date; "" = it is not
}

// Covers reports whether u says something of every pattern.
func (u *Units) Covers(patterns []string) bool {
	if len(patterns) == 0 {
		return true
	}
	if u == nil {
		return false
	}
	have := make(map[string]bool, len(u.Patterns))
	for _, p := range u.Patterns {
		have[p] = true
	}
	return !slices.ContainsFunc(patterns, func(p string) bool { return !have[p] })
}

// Find is the unit of that name; nil: it is inactive, or nothing is known of it.
func (u *Units) Find(name string) *Unit {
	if u == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(u.List, name, func(u Unit, name string) int { return strings.Compare(u.Name, name) })
	if !ok {
		return nil
	}
	return &u.List[i]
}

// Follows reports whether u, which serves, is another run than what the same backend was
// before, nil where it was no unit that runs: known says whether that is so, or whether
// nobody had asked.
func (u Unit) Follows(before *Unit, known *Units, match func(pattern, unit string) bool) bool {
	switch {
	case before == nil:
		return known != nil && slices.ContainsFunc(known.Patterns, func(p string) bool { return match(p, u.Name) })
	case before.Name != u.Name || !before.State.Serves():
		return true
	}
	return before.Run != "" && u.Run != "" && before.Run != u.Run
}
