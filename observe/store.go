package observe

import "slices"

// Capacities of the store: what was refused is not pushed out by what was not.
const (
	storedEvents   = 4096
	storedRefusals = 1024
)

// ring holds the newest events up to its capacity; it grows to that as it fills.
type ring struct {
	events []Event
	next   int // the oldest, once it is full
	most   int
}

func (r *ring) add(e *Event) {
	if len(r.events) < r.most {
		r.events = append(r.events, *e)
		return
	}
	r.events[r.next] = *e
	r.next = (r.next + 1) % r.most
}

// store keeps the newest events, and apart from them the newest refusals.
type store struct {
	all, refused ring
}

func newStore() store {
	return store{all: ring{most: storedEvents}, refused: ring{most: storedRefusals}}
}

func (s *store) add(e *Event) {
	if e.Told.Refusal() {
		s.refused.add(e)
	} else {
		s.all.add(e)
	}
}

// query returns what is wanted of what is there, the oldest first.
func (s *store) query(q *Query) []Event {
	var out []Event
	if q.Last == 0 {
		return nil
	}
	for _, r := range []*ring{&s.all, &s.refused} {
		for i := range r.events {
			if e := &r.events[i]; q.wants(e) && (q.Since.IsZero() || !e.At.Before(q.Since)) {
				out = append(out, *e)
			}
		}
	}
	slices.SortFunc(out, func(a, b Event) int {
		if a.Seq < b.Seq {
			return -1
		}
		return 1
	})
	if q.Last > 0 && len(out) > q.Last {
		out = out[len(out)-q.Last:]
	}
	return out
}
