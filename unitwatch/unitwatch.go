// Package unitwatch knows which cgroup belongs to which configured group: it
// turns systemd and cgroupfs into Snapshots. Only this package speaks D-Bus.
//
// cgroupfs is the truth: a slice's path follows from its name, and its id is
// the inode number of its directory. Signals from systemd and hints from the
// kernel only say where to look; nothing is taken from their payload, so that
// one that is lost, late, reordered or forged does no harm. Without a message
// bus the watcher works on cgroupfs alone.
//
// One goroutine owns the state; everybody else gets immutable Snapshots.
package unitwatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// HintKind says what the kernel saw.
type HintKind uint8

const (
	HintMkdir HintKind = iota + 1
	HintRmdir
	HintLost // events were lost: everything is looked at
	HintAll  // nothing was, but there may be what no event announced
)

// Hint says where something may have changed.
type Hint struct {
	ID, Parent uint64 // cgroup ids; 0 of HintLost and HintAll
	Kind       HintKind
	At         time.Time // of the event; zero = not known
}

// Options of a Watcher. CgroupRoot and Tree are needed.
type Options struct {
	CgroupRoot string        // a cgroup2 directory, as FindRoot or an operator names it
	Tree       *anchor.Tree  // what to look for; SetTree replaces it
	Dial       Dial          // of the message bus; nil = the system bus
	Runs       string        // where systemd keeps a link to each unit's invocation id; "" = /run/systemd/units
	Hints      <-chan Hint   // nil = none; may be closed
	Log        *slog.Logger  // nil = discard
	Resync     time.Duration // between walks that nothing asked for; 0 = 30 s
}

const defaultResync = 30 * time.Second

// Watcher watches the cgroup tree.
type Watcher struct {
	options Options
	tree    atomic.Pointer[anchor.Tree]
	retree  chan struct{} // cap 1
	updates chan *Snapshot
	count   counters
	in      *inbox
	bus     *bus
}

// New makes a Watcher; nothing happens before Run.
func New(o Options) *Watcher {
	if o.Dial == nil {
		o.Dial = DialSystemBus
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Runs == "" {
		o.Runs = "/run/systemd/units"
	}
	if o.Resync == 0 {
		o.Resync = defaultResync
	}
	w := &Watcher{
		options: o,
		retree:  make(chan struct{}, 1),
		updates: make(chan *Snapshot, 1),
		in:      newInbox(),
	}
	w.tree.Store(o.Tree)
	w.bus = newBus(o, w.in, &w.count)
	return w
}

// SetTree has the watcher look for other groups. The next Snapshot whose Tree
// is t knows them; until then the old ones are watched.
func (w *Watcher) SetTree(t *anchor.Tree) {
	w.tree.Store(t)
	select {
	case w.retree <- struct{}{}:
	default:
	}
}

// Updates delivers the latest Snapshot; one that was not received is replaced
// by the next. The first comes as soon as everything was looked at, with or
// without a message bus. The channel is never closed.
func (w *Watcher) Updates() <-chan *Snapshot { return w.updates }

// Stats may be called at any time, from any goroutine.
func (w *Watcher) Stats() Stats { return w.count.stats() }

// Run watches until ctx ends, which is no error. It fails if the cgroup root
// cannot be used, with a *RootError; whatever goes wrong later is retried and
// stands in the Snapshot. It may be called once.
func (w *Watcher) Run(ctx context.Context) error {
	if w.options.Tree == nil {
		return errors.New("watch cgroups: no tree")
	}
	root := w.options.CgroupRoot
	fd, err := openDir(unix.AT_FDCWD, root)
	if err != nil {
		return &RootError{Reason: NotAccessible, Path: root, Err: err}
	}
	defer unix.Close(fd)
	if err := isCgroup2(fd, root); err != nil {
		return err
	}
	h, err := newHierarchy(fd, w.tree.Load())
	if err != nil {
		return fmt.Errorf("watch %s: %w", root, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.bus.run(ctx) })
	g.Go(func() error { return newWatch(w, h).run(ctx) })
	return g.Wait()
}

// publish replaces a snapshot that nobody took. Only one goroutine calls it.
func (w *Watcher) publish(s *Snapshot) {
	select {
	case old := <-w.updates:
		s.Hinted = earlier(s.Hinted, old.Hinted)
	default:
	}
	w.updates <- s
}
