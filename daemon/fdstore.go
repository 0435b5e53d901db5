package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/bpf"
)

// The service manager's descriptor store keeps the data plane between two
// processes: links, programs, maps, and one memfd with the state that no map
// holds. Names carry a generation, so that two sets can be told apart: what is
// new is stored, the manager's receipt awaited, and only then is the old name
// removed; a SIGKILL in between leaves both, and the next start takes the newer.

// stored is a descriptor under the name that the store has for it.
type stored struct {
	Name string
	FD   int
	Poll bool // the manager may watch it for hang-up; maps must not be
}

// firstListenFD is where the descriptors that are handed over begin.
const firstListenFD = 3

// HandedOver reports whether this process was handed descriptors.
func HandedOver(lookup func(string) (string, bool)) bool {
	pid, _ := lookup("LISTEN_PID")
	n, _ := lookup("LISTEN_FDS")
	return pid == strconv.Itoa(os.Getpid()) && n != "" && n != "0"
}

// takeStored returns what the manager handed to this process, and hides it from
// children. The caller owns the descriptors. Names that are missing are "".
func takeStored(lookup func(string) (string, bool), unset func(string) error) ([]stored, error) {
	pid, _ := lookup("LISTEN_PID")
	count, _ := lookup("LISTEN_FDS")
	listed, _ := lookup("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := unset(name); err != nil {
			return nil, fmt.Errorf("unset %s: %w", name, err)
		}
	}
	if pid != strconv.Itoa(os.Getpid()) || count == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 1<<16 {
		return nil, fmt.Errorf("LISTEN_FDS=%q: not a number of descriptors", count)
	}
	names := strings.Split(listed, ":")
	out := make([]stored, n)
	for i := range out {
		fd := firstListenFD + i
		unix.CloseOnExec(fd)
		out[i] = stored{FD: fd}
		if i < len(names) {
			out[i].Name = names[i]
		}
	}
	return out, nil
}

// syncTimeout bounds the question whether the store took what was sent: the loop
// waits for the answer.
const syncTimeout = time.Second

// fdStore follows what the manager holds for this unit. One goroutine uses it.
type fdStore struct {
	notify *notifier
	held   map[string]int  // name -> descriptors under it, as far as this process knows
	maybe  map[string]bool // sent, and perhaps refused
	sends  atomic.Uint64   // how often something was sent; the keeper reads it
	had    atomic.Uint64   // sends at the newest receipt
	count  func(context.Context) storeCount
}

func newFDStore(n *notifier, handed []stored) *fdStore {
	s := &fdStore{notify: n, held: map[string]int{}, maybe: map[string]bool{}}
	for _, f := range handed {
		s.held[f.Name]++
	}
	return s
}

// errStoreFull is why what is old stays in the store: what takes its place may
// have been refused, and the manager tells nobody that it refuses.
type errStoreFull struct{ held, max uint32 }

func (e *errStoreFull) Error() string {
	return fmt.Sprintf("the descriptor store is full: it holds %d, and the unit's FileDescriptorStoreMax=%d; what it held before stays", e.held, e.max)
}

// took says whether c, which came after the manager's receipt, shows that nothing
// was refused: a store is full when it refuses. Who cannot count, has the receipt.
func (s *fdStore) took(c storeCount) error {
	sum := len(s.maybe)
	for name, n := range s.held {
		if !s.maybe[name] {
			sum += n
		}
	}
	if c.err != nil || c.held < c.max || int(c.held) >= sum {
		return nil
	}
	return &errStoreFull{c.held, c.max}
}

// sync makes the store hold exactly want. What is stored under its name
// already is not sent again; refill sends everything, because the manager may
// have lost it (it keeps one copy of a descriptor that it has).
func (s *fdStore) sync(ctx context.Context, want []stored, refill bool) error {
	if !s.notify.managed() {
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
		killPoint("store " + f.Name)
		sent = true
	}
	if sent {
		if err := s.receipt(ctx); err != nil {
			return fmt.Errorf("store descriptors: %w", err)
		}
		killPoint("barrier")
		if s.count != nil && s.stale(names) {
			if err := s.took(s.count(ctx)); err != nil {
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

// disown has the next sync remove a name before anything else.
func (s *fdStore) disown(name string) {
	if s.held[name] > 0 {
		s.maybe[name] = true
	}
}

// receipt waits until the manager has worked off all that was sent.
func (s *fdStore) receipt(ctx context.Context) error {
	sends := s.sends.Load()
	if err := s.notify.barrier(ctx); err != nil {
		return err
	}
	s.had.Store(sends)
	return nil
}

// put sends a descriptor. Until somebody knows better it may have been refused.
func (s *fdStore) put(flags int, f stored) error {
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

func (s *fdStore) remove(flags int, name string) error {
	s.sends.Add(1)
	if err := s.notify.write(flags, nil, "FDSTOREREMOVE=1", "FDNAME="+name); err != nil {
		return fmt.Errorf("remove stored descriptor %s: %w", name, err)
	}
	killPoint("remove " + name)
	delete(s.held, name)
	delete(s.maybe, name)
	return nil
}

// stale says whether the store holds something that is not among names.
func (s *fdStore) stale(names map[string]bool) bool {
	for name := range s.held {
		if !names[name] {
			return true
		}
	}
	return false
}

// prune removes what is not among names, now that these are known to be held.
func (s *fdStore) prune(flags int, names map[string]bool) (gone bool, err error) {
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

// closeAll closes descriptors that nobody took.
func closeAll(fds []stored) error {
	var errs []error
	for _, f := range fds {
		if err := unix.Close(f.FD); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", f.Name, err))
		}
	}
	return errors.Join(errs...)
}

// copies are for package bpf to own: opening may fail, and is tried again then.
func copies(fds []stored) ([]bpf.NamedFD, error) {
	var out []bpf.NamedFD
	for _, f := range fds {
		fd, err := unix.FcntlInt(uintptr(f.FD), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			for _, c := range out {
				unix.Close(c.FD)
			}
			return nil, fmt.Errorf("copy descriptor %s: %w", f.Name, err)
		}
		out = append(out, bpf.NamedFD{Name: f.Name, FD: fd, Poll: f.Poll})
	}
	return out, nil
}
