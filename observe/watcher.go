package observe

import (
	"context"
	"errors"
	"slices"
)

// buffered is how many events wait for one watcher.
const buffered = 2048

// ErrEnded means that the observer runs no more.
var ErrEnded = errors.New("nothing more is observed")

// Watcher hears of what it wants, until Close. One goroutine uses it.
type Watcher struct {
	o     *Observer
	query Query

	// Guarded by o.mu.
	events []Event
	spare  []Event // what Next returned last, to be filled again
	lost   []Lost
	ended  bool

	wake chan struct{} // holds one
}

// Batch is what came since the last: events, then what is missing behind them.
// It is good until the next.
type Batch struct {
	Events []Event
	Lost   []Lost
}

// Next waits for more. The error is the context's, or ErrEnded.
func (w *Watcher) Next(ctx context.Context) (Batch, error) {
	for {
		if b, err := w.take(); err != nil || len(b.Events)+len(b.Lost) > 0 {
			return b, err
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return Batch{}, ctx.Err()
		}
	}
}

func (w *Watcher) take() (Batch, error) {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	b := Batch{Events: w.events, Lost: w.lost}
	w.events, w.spare, w.lost = w.spare[:0], w.events, nil
	if w.ended && len(b.Events)+len(b.Lost) == 0 {
		return b, ErrEnded
	}
	return b, nil
}

// Close ends it. When nobody is left, the programs are at their former pace.
func (w *Watcher) Close() { w.o.leave(w) }

// add is called with o.mu held.
func (w *Watcher) add(e *Event) {
	if !w.query.wants(e) {
		return
	}
	if len(w.events) >= buffered {
		w.miss(Lost{Where: LostWatcher, Count: 1})
		return
	}
	w.events = append(w.events, *e)
	w.signal()
}

// miss is called with o.mu held.
func (w *Watcher) miss(l Lost) {
	i := slices.IndexFunc(w.lost, func(have Lost) bool { return have.Where == l.Where && have.Group == l.Group })
	if i < 0 {
		i = len(w.lost)
		w.lost = append(w.lost, Lost{Where: l.Where, Group: l.Group})
	}
	w.lost[i].Count += l.Count
	w.signal()
}

func (w *Watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
