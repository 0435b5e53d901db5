package observe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/slicelb/slicelb/bpf"
)

// Bounds of what watchers hold together. One user takes nothing from another, and
// all of them leave some to root.
const (
	maxWatchers = 16
	maxOthers   = 12 // of users but root
	maxUser     = 4  // of one user but root
)

// ErrTooMany means that there are as many watchers as there may be.
var ErrTooMany = errors.New("too many watch already")

// Source is the data plane, as far as decisions go.
type Source interface {
	Watch(*bpf.Watch) error
	Time(bool) error
	GroupName(index uint32) string
	VIPName(cell uint32) string
	GroupIndex(name string) (uint32, bool)
	VIPCells(name string) []uint32
	Stats() (bpf.Stats, error)
	Suppressed() map[uint32]uint64
}

// Reader delivers decisions, until io.EOF.
type Reader interface {
	Read(*bpf.Decision) error
	Poll(bool)
	io.Closer
}

// Options of New.
type Options struct {
	// Names fills in the caller's Unit, Path and, for a split child, Group. It is
	// called by Run's goroutine.
	Names func(*Event)

	// At is the wall clock's time of a decision.
	At func(monotonic time.Duration) time.Time

	// Refused is called by Run's goroutine with every refusal, and with how many
	// of a group were not told one by one. It does not wait.
	Refused func(*Event)
	Missed  func(Lost)

	Log *slog.Logger
}

// Observer passes decisions on. Its methods may be called by several goroutines.
type Observer struct {
	opts Options

	mu       sync.Mutex
	source   Source // nil until Run
	reader   Reader
	store    store
	seq      uint64
	watchers map[*Watcher]bool
	asked    time.Time // when somebody wanted to know how long connects take
	ended    bool

	told       uint64 // events that arrived
	lost       uint64 // in the kernel, as it was last looked at
	suppressed map[uint32]uint64
	refused    time.Time // the newest refusal: budgets change for a while after one

	calls calls // Run's goroutine owns it
}

// New makes one that has nothing to observe yet.
func New(opts Options) *Observer {
	return &Observer{opts: opts, store: newStore(), calls: newCalls(), watchers: map[*Watcher]bool{}, suppressed: map[uint32]uint64{}}
}

// renewal is how often the programs are told again what is wanted, and their
// counts are looked at.
const renewal = bpf.WatchLease / 3

// settled is how long after the newest refusal no budget of its window is spent
// any more: a window is about a second.
const settled = 3 * renewal

// Run reads decisions from r until ctx ends, and closes it.
func (o *Observer) Run(ctx context.Context, s Source, r Reader) error {
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	o.begin(s, r)
	var looking sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	looking.Go(func() {
		tick := time.NewTicker(renewal)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				o.look()
			}
		}
	})
	var err error
	for e := new(Event); err == nil; {
		*e = Event{}
		if err = r.Read(&e.Decision); err == nil {
			o.hear(s, e)
		}
	}
	cancel()
	looking.Wait()
	o.End()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, r.Close())
}

func (o *Observer) begin(s Source, r Reader) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.source, o.reader = s, r
	if st, err := s.Stats(); err == nil {
		o.lost = st.DecisionsLost // before this process, or nobody's
	}
	o.suppressed = s.Suppressed()
	o.ask()
}

// End has every watcher's Next return ErrEnded, once it has what had come.
func (o *Observer) End() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.source, o.reader = nil, nil
	for w := range o.watchers {
		w.ended = true
		w.signal()
	}
}

// hear names an event by s, stores it and passes it on. Run's goroutine calls it,
// also after End: what had come by then is still told.
func (o *Observer) hear(s Source, e *Event) {
	e.Group, e.VIP = Host, ""
	if e.Decision.Group != 0 {
		e.Group = s.GroupName(e.Decision.Group)
	}
	if e.Decision.VIP != 0 {
		e.VIP = s.VIPName(e.Decision.VIP)
	}
	if e.Cell != e.Decision.VIP {
		e.View = e.Group
	}
	e.At = o.opts.At(e.Time)
	if e.Told == bpf.Connected {
		o.calls.recall(e)
	} else {
		o.opts.Names(e)
		o.calls.note(e)
	}

	o.mu.Lock()
	o.seq++
	e.Seq = o.seq
	o.told++
	o.store.add(e)
	if e.Told.Refusal() {
		o.refused = time.Now()
	}
	for w := range o.watchers {
		w.add(e)
	}
	o.mu.Unlock()
	if e.Told.Refusal() {
		o.opts.Refused(e)
	}
}

// Watch has w hear of what q wants from now on, and returns what is stored of it.
func (o *Observer) Watch(q Query) (*Watcher, []Event, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.room(q.UID); err != nil {
		return nil, nil, err
	}
	w := &Watcher{o: o, query: q, wake: make(chan struct{}, 1), ended: o.ended}
	o.watchers[w] = true
	o.ask()
	return w, o.store.query(&q), nil
}

// room is nil where there may be one more watcher of a user; else ErrTooMany, with
// the bound that is reached. It is called with mu held.
func (o *Observer) room(uid uint32) error {
	own, others := 0, 0
	for w := range o.watchers {
		if w.query.UID == uid {
			own++
		}
		if w.query.UID != 0 {
			others++
		}
	}
	switch {
	case uid != 0 && own >= maxUser:
		return fmt.Errorf("%w: %d of user %d, and one user may have no more", ErrTooMany, own, uid)
	case uid != 0 && others >= maxOthers:
		return fmt.Errorf("%w: %d of users but root, who may have no more together", ErrTooMany, others)
	case len(o.watchers) >= maxWatchers:
		return fmt.Errorf("%w: %d, and there may be no more", ErrTooMany, len(o.watchers))
	}
	return nil
}

// Stored returns what is stored of what q wants.
func (o *Observer) Stored(q Query) []Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.store.query(&q)
}

func (o *Observer) leave(w *Watcher) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.watchers, w)
	o.ask()
}

// ask tells the programs what is wanted. It is called with mu held.
func (o *Observer) ask() {
	if o.source == nil {
		return
	}
	// While the programs do not wake the reader up, it looks by itself.
	if len(o.watchers) > 0 {
		o.reader.Poll(true)
	}
	err := o.source.Watch(o.wanted())
	if len(o.watchers) == 0 {
		o.reader.Poll(false)
	}
	if err == nil {
		err = o.source.Time(o.timed())
	}
	if err != nil {
		o.opts.Log.Warn("watch decisions", "err", err)
	}
}

// curious is how long after somebody asked connects are timed.
const curious = 30 * time.Second

// AskTimes has connects timed for a while.
func (o *Observer) AskTimes() {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.timed()
	if o.asked = time.Now(); !was {
		o.ask()
	}
}

// Timed says whether anybody wants to know how long connects take.
func (o *Observer) Timed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.timed()
}

func (o *Observer) timed() bool { return len(o.watchers) > 0 || time.Since(o.asked) < curious }

// wanted is the least that holds what every watcher wants, of what the programs
// can tell apart; nil where nobody watches.
func (o *Observer) wanted() *bpf.Watch {
	if len(o.watchers) == 0 {
		return nil
	}
	w := &bpf.Watch{}
	var group, vip string
	first, anyVIP := true, false
	for _, t := range bpf.Tolds {
		for one := range o.watchers {
			if one.query.wantsTold(t) {
				w.Told = append(w.Told, t)
				break
			}
		}
	}
	for one := range o.watchers {
		q := &one.query
		if first {
			group, vip, first = q.kernelGroup(), q.VIP, false
		}
		w.AnyGroup = w.AnyGroup || q.Group == "" || q.kernelGroup() != group
		anyVIP = anyVIP || q.VIP == "" || q.VIP != vip
	}
	if !w.AnyGroup && group != Host {
		index, ok := o.source.GroupIndex(group)
		w.Group, w.AnyGroup = index, !ok
	}
	if !anyVIP {
		w.Cells = o.source.VIPCells(vip)
	}
	return w
}

// look renews what the programs are to tell, and has watchers hear of what was
// lost. Run does it once a second.
func (o *Observer) look() {
	o.mu.Lock()
	if o.source == nil {
		o.mu.Unlock()
		return
	}
	o.ask()
	var missed []Lost
	if st, err := o.source.Stats(); err == nil && st.DecisionsLost != o.lost {
		missed = append(missed, Lost{Where: LostKernel, Count: st.DecisionsLost - o.lost})
		o.lost = st.DecisionsLost
		o.refused = time.Now() // one may be among them
	}
	if time.Since(o.refused) < settled {
		now := o.source.Suppressed()
		for group, n := range now {
			if n == o.suppressed[group] {
				continue
			}
			l := Lost{Where: LostBudget, Group: Host, Count: n - o.suppressed[group]}
			if group != 0 {
				l.Group = o.source.GroupName(group)
			}
			missed = append(missed, l)
		}
		o.suppressed = now
	}
	for _, l := range missed {
		for w := range o.watchers {
			if l.Where != LostBudget || w.query.Group == "" || w.query.kernelGroup() == l.Group {
				w.miss(l)
			}
		}
	}
	o.mu.Unlock()
	for _, l := range missed {
		o.opts.Missed(l)
	}
}

// Refresh tells the programs anew what is wanted: whoever changes the indexes of
// VIPs and groups calls it.
func (o *Observer) Refresh() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.watchers) > 0 {
		o.ask()
	}
}

// Counts are how many decisions arrived, and how many watch.
func (o *Observer) Counts() (told uint64, watchers int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.told, len(o.watchers)
}
