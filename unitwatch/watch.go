package unitwatch

import (
	"context"
	"slices"
	"strings"
	"time"
)

// How often things are done at most. Work that takes long is done less often,
// so that a storm costs a bounded share of one processor.
const (
	lookGap  = time.Millisecond      // between looks at single directories
	walkGap  = 20 * time.Millisecond // between walks of everything
	sendGap  = 2 * time.Millisecond  // between snapshots
	shareGap = 3                     // idle time after work, in lengths of that work
	maxGap   = 2 * time.Second       // whatever the work took

	failGap    = time.Second            // before a walk that failed in part is tried again
	trailGap   = 500 * time.Millisecond // a unit's directory may outlive its signal
	hintedGap  = 5 * time.Second        // walks for signals, where the kernel hints as well
	strayGap   = 20 * time.Millisecond  // within which a unit's directory is hinted at, or its hint was lost
	suspectGap = time.Second            // within which a hint is late, but not lost

	// An event precedes its directory's being visible, and systemd's mark
	// follows that. Each try is five times later than the one before.
	firstRetry = 2 * time.Millisecond
	retries    = 4
	retryScale = 5

	marksGap   = 5 * time.Millisecond // between batches of marks that a walk has left
	marksBatch = 256

	maxDirty   = 256  // directories; more are a walk
	maxPending = 4096 // entries of each list of things to try again
)

// watch is the state of a running Watcher. One goroutine owns it.
type watch struct {
	w *Watcher
	h *hierarchy

	dirty    map[*dir]struct{} // to look at
	full     string            // cause of a walk that is due; "" = none
	periodic bool              // nothing but the clock asked for it
	nextLook time.Time         // neither looks nor walks are done before
	nextWalk time.Time
	nextRead time.Time // of marks that a walk has left
	trailing time.Time // a walk is due then, for what a signal was early for
	stray    time.Time // a walk is due then, for what no hint has announced
	strayed  time.Time // when the last such walk was

	wanted    map[uint64]*attempt // made, but not seen yet
	unnamed   map[*dir]*attempt   // without systemd's mark yet
	fresh     map[*dir]*attempt   // new, and perhaps not known to the kernel yet
	nextAgain time.Time           // no attempt is due before; zero = there is none
	orphans   map[uint64]uint64   // parent -> child, of hints whose parent was not known
	older     map[uint64]uint64   // the generation before

	asks   map[string]bool // units to ask systemd about; true = the invocation id too
	asking bool

	suspect map[uint64]struct{} // found by the clock's walk, and announced by no hint yet
	settle  time.Time

	mail     mail
	stale    bool // a snapshot is due
	nextSend time.Time
	walked   bool      // everything was looked at, at least once
	walkedAt time.Time // when the newest walk without an error began
	hinted   time.Time // see Snapshot.Hinted
	asked    bool      // a snapshot is to follow the next walk in any case
	later    bool      // and the next periodic one: until then an entry may be of what no walk could see yet
	failed   error     // of the last walk, or of a look since
	failures int       // how many directories
}

func newWatch(w *Watcher, h *hierarchy) *watch {
	return &watch{
		w: w, h: h, full: "start",
		dirty:   map[*dir]struct{}{},
		wanted:  map[uint64]*attempt{},
		unnamed: map[*dir]*attempt{},
		fresh:   map[*dir]*attempt{},
		orphans: map[uint64]uint64{},
		older:   map[uint64]uint64{},
		asks:    map[string]bool{},
		suspect: map[uint64]struct{}{},
		mail:    w.in.take(),
	}
}

func (v *watch) run(ctx context.Context) error {
	hints := v.w.options.Hints
	resync := time.NewTicker(v.w.options.Resync)
	defer resync.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		v.work(time.Now())
		timer.Reset(time.Until(v.next()))
		select {
		case <-ctx.Done():
			return nil
		case hint, ok := <-hints:
			if !ok {
				hints = nil
				continue
			}
			v.hint(hint)
			for range len(hints) { // what is there already belongs to the same look
				if hint, ok = <-hints; ok {
					v.hint(hint)
				}
			}
		case <-v.w.in.wake:
			v.receive(v.w.in.take())
		case <-v.w.retree:
			v.retree()
		case units := <-v.w.bus.answers:
			v.named(units)
		case <-resync.C:
			v.walkFor("periodic", true)
		case <-timer.C:
		}
	}
}

// next is when work has something to do, unless something arrives before.
func (v *watch) next() time.Time {
	at := time.Now().Add(time.Hour)
	due := func(wanted bool, t time.Time) {
		if wanted && t.Before(at) {
			at = t
		}
	}
	due(v.full != "", v.nextWalk)
	due(len(v.dirty) > 0, v.nextLook)
	due(v.unsent(), v.nextSend)
	due(!v.nextAgain.IsZero(), v.nextAgain)
	due(!v.trailing.IsZero(), v.trailing)
	due(!v.stray.IsZero(), v.stray)
	due(!v.settle.IsZero(), v.settle)
	due(len(v.h.unread) > 0, v.nextRead)
	return at
}

// work does what is due.
func (v *watch) work(now time.Time) {
	if !v.nextAgain.IsZero() && !now.Before(v.nextAgain) {
		v.again(now)
	}
	if !v.settle.IsZero() && !now.Before(v.settle) {
		v.w.count.hintsLost.Add(uint64(len(v.suspect)))
		clear(v.suspect)
		v.settle = time.Time{}
	}
	if !v.trailing.IsZero() && !now.Before(v.trailing) {
		v.trailing = time.Time{}
		v.walkFor("signals", false)
	}
	if !v.stray.IsZero() && !now.Before(v.stray) {
		v.stray, v.strayed = time.Time{}, now
		v.walkFor("signals", false)
	}
	switch {
	case v.full != "" && !now.Before(v.nextWalk):
		v.walk(now)
	case len(v.dirty) > 0 && !now.Before(v.nextLook):
		v.h.begin()
		for d := range v.dirty {
			v.h.look(d)
			v.w.count.looks.Add(1)
		}
		clear(v.dirty)
		v.looked(now)
	}
	if len(v.h.unread) > 0 && !now.Before(v.nextRead) {
		v.readMarks()
	}
	v.ask()
	if v.unsent() && !time.Now().Before(v.nextSend) {
		v.send()
	}
}

func (v *watch) unsent() bool {
	// While many names come in, they go out with whatever else changes, or at the end.
	changed := v.stale || v.h.changed || v.h.renamed && len(v.h.unread) == 0
	return changed && (v.walked || v.failed != nil)
}

// hint marks dirty what the kernel saw.
func (v *watch) hint(hint Hint) {
	switch hint.Kind {
	case HintLost:
		v.w.count.overflows.Add(1)
		v.walkFor("lost events", false)
		v.asked = true
		return
	case HintAll:
		v.walkFor("the kernel's table changed", false)
		v.asked = true
		return
	}
	v.w.count.hints.Add(1)
	delete(v.suspect, hint.ID)
	known := v.h.byID[hint.ID] != nil
	if hint.Kind == HintRmdir {
		delete(v.wanted, hint.ID)
		if !known {
			v.w.count.hintsIgnored.Add(1)
			return
		}
	}
	parent := v.h.byID[hint.Parent]
	if parent == nil || !parent.walk {
		v.w.count.hintsIgnored.Add(1)
		if parent == nil && hint.Kind == HintMkdir {
			v.orphan(hint)
		}
		return
	}
	if hint.Kind == HintMkdir && !known {
		v.want(hint.ID, hint.Parent, hint.At)
	}
	v.mark(parent)
}

func (v *watch) mark(d *dir) {
	if len(v.dirty) >= maxDirty {
		v.walkFor("many changes", false)
		return
	}
	v.dirty[d] = struct{}{}
}

func (v *watch) walkFor(cause string, periodic bool) {
	if v.full == "" || v.periodic && !periodic {
		v.full, v.periodic = cause, periodic
	}
}

// receive takes what the bus said.
func (v *watch) receive(m mail) {
	if m.mode != v.mail.mode || m.cause != v.mail.cause || m.reloads != v.mail.reloads {
		v.stale = true
	}
	v.mail = m
	if m.resync != "" {
		v.walkFor(m.resync, false)
		for _, d := range v.h.byUnit {
			v.enquire(d)
		}
	}
	if len(m.units) == 0 {
		return
	}
	strays := false
	for _, u := range m.units {
		if d := v.h.byUnit[u]; d != nil {
			v.unname(d)
		} else if d := v.h.nearest(u); d != nil {
			v.mark(d) // it may be there now, though the kernel's hint was lost
		} else if !strings.HasSuffix(u, ".slice") {
			strays = true // its name does not say where it is, or whether that matters
		}
	}
	if v.w.options.Hints != nil {
		if now := time.Now(); strays && v.stray.IsZero() && now.Sub(v.strayed) >= hintedGap {
			v.stray = now.Add(strayGap)
		}
		v.trail(hintedGap)
		return
	}
	v.walkFor("signals", false)
	v.trail(trailGap)
}

// trail has everything looked at after a while.
func (v *watch) trail(after time.Duration) {
	if v.trailing.IsZero() {
		v.trailing = time.Now().Add(after)
	}
}

// retree watches for other groups from now on. The hierarchy is built anew and
// takes the old one's place when it is whole.
func (v *watch) retree() {
	tree := v.w.tree.Load()
	if tree == v.h.tree {
		return
	}
	now := time.Now()
	h, err := v.h.rebuild(tree)
	if err != nil { // the old groups stay
		v.w.options.Log.Error("watch for other groups", "error", err)
		return
	}
	v.h = h
	clear(v.dirty)
	clear(v.unnamed)
	clear(v.fresh)
	v.full, v.periodic = "", false
	v.walkDone(now, "configuration")
}

// walk looks at everything.
func (v *watch) walk(now time.Time) {
	cause, periodic := v.full, v.periodic
	v.full, v.periodic = "", false
	v.h.begin()
	v.h.walkAll()
	if periodic && v.w.options.Hints != nil {
		v.suspects()
	}
	clear(v.dirty)
	v.walkDone(now, cause)
}

// suspects are the differences that no hint has announced so far. What came or
// went with its parent is one difference.
func (v *watch) suspects() {
	differ := map[*dir]bool{}
	for _, d := range v.h.added {
		differ[d] = true
	}
	for _, d := range v.h.removed {
		differ[d] = true
	}
	for d := range differ {
		_, dirty := v.dirty[d.parent]
		access := d.parent.closed || slices.Contains(v.h.opened, d.parent) // is what has changed
		if !dirty && !access && v.wanted[d.id] == nil && !differ[d.parent] {
			v.suspect[d.id] = struct{}{}
		}
	}
	if len(v.suspect) > 0 && v.settle.IsZero() {
		v.settle = time.Now().Add(suspectGap)
	}
}

func (v *watch) walkDone(begun time.Time, cause string) {
	took := time.Since(begun)
	difference := len(v.h.added) + len(v.h.removed)
	v.w.count.walks.Add(1)
	v.w.count.set(func(s *Stats) {
		s.LastResync, s.LastResyncCause, s.LastResyncDifference, s.LastWalk = begun, cause, difference, took
		if s.Causes == nil {
			s.Causes = map[string]uint64{}
		}
		s.Causes[cause]++
	})
	v.nextWalk = time.Now().Add(gap(walkGap, took))
	if v.h.err == nil {
		v.walkedAt = begun
		periodic := cause == "periodic"
		v.stale = v.stale || v.asked || v.later && periodic
		v.later = (v.later || v.asked || !v.walked) && !periodic
		v.asked = false
	}
	first := !v.walked
	if first || v.failed != nil && v.h.err == nil {
		v.walked, v.failed, v.stale = true, nil, true
	}
	v.looked(begun)
	if first {
		clear(v.fresh) // who attaches the kernel's programs has everything looked at again
	}
}

// looked follows up what a look or a walk found.
func (v *watch) looked(begun time.Time) {
	v.nextLook = time.Now().Add(gap(lookGap, time.Since(begun)))
	if err := v.h.err; err != nil {
		v.w.count.walkErrors.Add(1)
		if v.failed == nil {
			v.w.options.Log.Warn("look at cgroups, trying again", "error", err)
		}
		v.failed, v.failures, v.stale = err, v.h.failures, true
		v.walkFor("errors", false)
		if again := time.Now().Add(failGap); again.After(v.nextWalk) { // else the walk took long
			v.nextWalk = again
		}
	}
	for _, d := range v.h.added {
		if a := v.wanted[d.id]; a != nil {
			v.hinted = earlier(v.hinted, a.hinted)
			delete(v.wanted, d.id)
		}
		child, late := v.orphans[d.id]
		if !late {
			child, late = v.older[d.id]
		}
		if late && d.walk && v.h.byID[child] == nil {
			v.want(child, d.id, time.Time{})
			v.mark(d)
		}
		if d.walk && v.h.byID[d.id] == d {
			v.recheck(d)
		}
		switch {
		case !d.shaped || d.unread || v.h.byID[d.id] != d:
		case d.about.invoked() == "":
			v.unname(d)
		default:
			v.enquire(d)
		}
	}
	for _, d := range v.h.removed {
		delete(v.unnamed, d)
		delete(v.fresh, d)
		if unit := d.shape(); unit != "" && v.h.byUnit[unit] == nil {
			delete(v.asks, unit)
		}
	}
}

func gap(least, work time.Duration) time.Duration {
	return min(max(least, shareGap*work), maxGap)
}

// earlier is the earlier of two times that are known.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// send publishes what is known.
func (v *watch) send() {
	begun := time.Now()
	s := v.h.snapshot()
	s.Mode, s.Cause, s.Reloads = v.mail.mode, v.mail.cause, v.mail.reloads
	s.Walked, s.Hinted = v.walkedAt, v.hinted
	v.hinted = time.Time{}
	s.Complete = v.walked && v.failed == nil
	if v.failed != nil {
		s.Failed, s.Failures = v.failed.Error(), v.failures
	}
	v.stale, v.h.changed, v.h.renamed = false, false, false
	v.w.count.snapshots.Add(1)
	members, anchors := 0, 0
	for i := range s.Cgroups {
		if s.Cgroups[i].Member {
			members++
		}
		if s.Cgroups[i].Match.Anchor {
			anchors++
		}
	}
	v.w.count.set(func(st *Stats) {
		st.Mode, st.Cause = s.Mode, s.Cause
		st.Dirs, st.Members, st.Anchors, st.Pending = len(s.Cgroups), members, anchors, len(s.Pending)
	})
	v.w.publish(s)
	v.nextSend = time.Now().Add(gap(sendGap, time.Since(begun)))
}
