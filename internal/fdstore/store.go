// Package fdstore is a process's side of its service manager: it speaks sd_notify's
// protocol, takes the descriptors that were kept for it, and has the manager keep
// others for the process that comes after it (sd_notify(3), FDSTORE=1).
//
// A Store owns no descriptor: it knows what the manager holds under which name.
// Names carry a generation, so that two sets can be told apart: what is new is
// stored, the manager's receipt awaited, and only then is the old name removed; a
// SIGKILL in between leaves both, and the next start takes the newer.
package fdstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/killpoint"
)

// syncTimeout bounds the question whether the manager took what was sent: Sync's
// caller waits for the answer.
const syncTimeout = time.Second

// Store follows what the manager holds for this unit. One goroutine uses it, beside
// its Counter.
type Store struct {
	notify *Notifier
	ask    Ask
	held   map[string]int  // name -> descriptors under it, as far as this process knows
	maybe  map[string]bool // sent, and perhaps refused
	sends  atomic.Uint64   // how often something was sent; the Counter reads it
	had    atomic.Uint64   // sends at the newest receipt
}

// New is the store of a process that was handed so much of it.
func New(n *Notifier, handed []FD, ask Ask) *Store {
	s := &Store{notify: n, ask: ask, held: map[string]int{}, maybe: map[string]bool{}}
	for _, f := range handed {
		s.held[f.Name]++
	}
	return s
}

// FullError is why what is old stays in the store: what takes its place may have
// been refused, and the manager tells nobody that it refuses.
type FullError struct{ Held, Max uint32 }

func (e *FullError) Error() string {
	return fmt.Sprintf("the descriptor store is full: it holds %d, and the unit's FileDescriptorStoreMax=%d; what it held before stays", e.Held, e.Max)
}

// Sync makes the store hold exactly want. What is stored under its name
// already is not sent again; refill sends everything, because the manager may
// have lost it (it keeps one copy of a descriptor that it has). A *FullError means
// that something may have been refused; nothing was removed then.
func (s *Store) Sync(ctx context.Context, want []FD, refill bool) error {
	if !s.notify.Managed() {
		return nil
	}
	names := map[string]bool{}
	for _, f := range want {
		if names[f.Name] {
			return fmt.Errorf("store descriptors: two are named %s", f.Name)
		}
		names[f.Name] = true
	}
	// What nobody has relied on makes room first.
	for _, name := range slices.Sorted(maps.Keys(s.maybe)) {
		if !names[name] {
			if err := s.remove(0, name); err != nil {
				return err
			}
		}
	}
	sent := false
	for _, f := range want {
		if s.held[f.Name] > 0 && !s.maybe[f.Name] && !refill {
			continue
		}
		if err := s.put(0, f); err != nil {
			return err
		}
		killpoint.Here("store " + f.Name)
		sent = true
	}
	if sent {
		if err := s.receipt(ctx); err != nil {
			return fmt.Errorf("store descriptors: %w", err)
		}
		killpoint.Here("barrier")
		if s.stale(names) {
			if err := s.took(s.count(ctx, syncTimeout)); err != nil {
				return err
			}
		}
	}
	gone, err := s.prune(0, names)
	if err == nil && gone {
		if err = s.receipt(ctx); err != nil {
			err = fmt.Errorf("remove stored descriptors: %w", err)
		}
	}
	return err
}

// Offer sends a descriptor without waiting for the manager. Settle says what came of
// it.
func (s *Store) Offer(f FD) error { return s.put(unix.MSG_DONTWAIT, f) }

// Settle removes what is not among want, without waiting, where c shows that the
// manager took what was offered; c may be of too early a time to show anything. It
// says whether something was removed.
func (s *Store) Settle(c Count, want []FD) (removed bool, err error) {
	if !c.received || !s.Newest(c) {
		return false, nil // the next Sync does it, or the next count
	}
	names := map[string]bool{}
	for _, f := range want {
		names[f.Name] = true
	}
	if len(s.maybe) == 0 && !s.stale(names) {
		return false, nil
	}
	if err := s.took(c); err != nil {
		return false, err
	}
	return s.prune(unix.MSG_DONTWAIT, names)
}

// Disown has the next Sync remove a name before anything else.
func (s *Store) Disown(name string) {
	if s.held[name] > 0 {
		s.maybe[name] = true
	}
}

// Newest says whether c is of all that was sent until now.
func (s *Store) Newest(c Count) bool { return c.of == s.sends.Load() }

// count asks the manager.
func (s *Store) count(ctx context.Context, timeout time.Duration) Count {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	held, most, err := s.ask(ctx)
	return Count{Held: held, Max: most, Err: err}
}

// took says whether c, which came after the manager's receipt, shows that nothing
// was refused: a store is full when it refuses. Who cannot count, has the receipt.
func (s *Store) took(c Count) error {
	sum := len(s.maybe)
	for name, n := range s.held {
		if !s.maybe[name] {
			sum += n
		}
	}
	if c.Err != nil || c.Held < c.Max || int(c.Held) >= sum {
		return nil
	}
	return &FullError{c.Held, c.Max}
}

// receipt waits until the manager has worked off all that was sent.
func (s *Store) receipt(ctx context.Context) error {
	sends := s.sends.Load()
	if err := s.notify.Barrier(ctx); err != nil {
		return err
	}
	s.had.Store(sends)
	return nil
}

// put sends a descriptor. Until somebody knows better it may have been refused.
func (s *Store) put(flags int, f FD) error {
	lines := []string{"FDSTORE=1", "FDNAME=" + f.Name}
	if !f.Poll {
		lines = append(lines, "FDPOLL=0")
	}
	s.sends.Add(1)
	if err := s.notify.write(flags, []int{f.FD}, lines...); err != nil {
		return fmt.Errorf("store descriptor %s: %w", f.Name, err)
	}
	if s.held[f.Name] == 0 {
		s.held[f.Name] = 1
		s.maybe[f.Name] = true
	}
	return nil
}

func (s *Store) remove(flags int, name string) error {
	s.sends.Add(1)
	if err := s.notify.write(flags, nil, "FDSTOREREMOVE=1", "FDNAME="+name); err != nil {
		return fmt.Errorf("remove stored descriptor %s: %w", name, err)
	}
	killpoint.Here("remove " + name)
	delete(s.held, name)
	delete(s.maybe, name)
	return nil
}

// stale says whether the store holds something that is not among names.
func (s *Store) stale(names map[string]bool) bool {
	for name := range s.held {
		if !names[name] {
			return true
		}
	}
	return false
}

// prune removes what is not among names, now that these are known to be held.
func (s *Store) prune(flags int, names map[string]bool) (gone bool, err error) {
	clear(s.maybe)
	for _, name := range slices.Sorted(maps.Keys(s.held)) {
		if names[name] {
			s.held[name] = 1
			continue
		}
		if err := s.remove(flags, name); err != nil {
			return gone, err
		}
		gone = true
	}
	return gone, nil
}
