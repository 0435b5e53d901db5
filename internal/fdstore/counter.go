package fdstore

import (
	"context"
	"time"
)

// askTimeout bounds one question to the manager.
const askTimeout = 5 * time.Second

// Ask is the question how many descriptors the manager holds for this process's
// unit, and how many it would.
type Ask func(ctx context.Context) (held, most uint32, err error)

// Count is an answer to it.
type Count struct {
	Held, Max uint32
	Err       error // nobody could be asked

	of       uint64 // Store.sends before the question
	received bool   // the manager had worked off those
}

// Counter asks the manager, one question at a time, whenever it is poked. While a
// unit runs the manager may drop what it holds: the unit was masked, its file is
// missing, its limit was lowered.
type Counter struct {
	store  *Store
	pokes  chan struct{}
	counts chan Count
}

// NewCounter counts what the manager holds of s.
func NewCounter(s *Store) *Counter {
	return &Counter{store: s, pokes: make(chan struct{}, 1), counts: make(chan Count)}
}

// Count asks once the manager has all that was sent until now.
func (c *Counter) Count(ctx context.Context) Count {
	sends := c.store.sends.Load()
	received := c.store.had.Load() >= sends || c.store.notify.Barrier(ctx) == nil
	n := c.store.count(ctx, askTimeout)
	n.of, n.received = sends, received
	return n
}

// Poke makes the counter ask soon.
func (c *Counter) Poke() {
	select {
	case c.pokes <- struct{}{}:
	default:
	}
}

// Poked says whether a question is due.
func (c *Counter) Poked() bool { return len(c.pokes) > 0 }

// Counts has what Run was told.
func (c *Counter) Counts() <-chan Count { return c.counts }

// Run asks until ctx ends.
func (c *Counter) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.pokes:
		}
		n := c.Count(ctx)
		select {
		case <-ctx.Done():
			return nil
		case c.counts <- n:
		}
	}
}
