package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// tick is how often the loop looks after what nobody tells it of: a link that
// somebody severed, a write to try again, the watchdog.
const tick = 500 * time.Millisecond

// storeInterval is how often the descriptor store is counted while it is not
// known to be whole. A whole one is counted again after each daemon-reload, the
// one time at which systemd drops descriptors of a unit that runs: a daemon that
// nothing happens to costs systemd nothing.
const storeInterval = 10 * time.Second

// trimInterval is how often memory that was used for a moment is given back.
const trimInterval = 10 * time.Second

// source is a configuration and what follows from it alone.
type source struct {
	cfg      *config.Config
	tree     *anchor.Tree
	warnings []string
	lastGood bool // restored from the descriptor store
	loaded   time.Time
	checks   map[string]*health.Check // by VIP
	broken   error                    // why some of checks cannot be made
}

// newSource compiles what cfg says about cgroups.
func newSource(cfg *config.Config, warnings config.Warnings) (*source, error) {
	groups := make([]anchor.Group, len(cfg.Groups))
	for i, g := range cfg.Groups {
		groups[i] = anchor.Group{Name: g.Name, Split: g.Split}
		for _, a := range g.Anchors {
			groups[i].Patterns = append(groups[i].Patterns, a.Pattern)
		}
	}
	tree, err := anchor.Compile(groups)
	if err != nil {
		return nil, fmt.Errorf("groups: %w", err)
	}
	s := &source{cfg: cfg, tree: tree, loaded: time.Now()}
	s.checks, s.broken = checksOf(cfg)
	for _, w := range warnings {
		s.warnings = append(s.warnings, fmt.Sprintf("%s: %s", w.Pos, w.Message))
	}
	return s, nil
}

// daemon keeps the kernel at what the configuration and the cgroups say. Run's
// goroutine owns every field but those that say otherwise; it is the only one
// that writes to the maps.
type daemon struct {
	log        *slog.Logger
	level      *slog.LevelVar
	notify     *notifier
	store      *fdStore
	keeper     *keeper
	open       openDataPath
	root       cgroupRoot
	rootDir    *os.File
	configPath string
	socket     string
	lock       *os.File
	lockHeld   bool // the lock file is still the one that is locked
	started    time.Time

	handed    []stored  // of a data plane, until one is opened
	build     string    // bpf.Build of what was handed
	inherited bool      // this process was handed something: it must not exit 78 or 2
	state     *os.File  // the sealed memfd of the newest last good
	heirless  []stored  // memfds that were handed over, until one of this process takes their place
	good      *lastGood // what is in it
	states    uint64    // generation of the newest memfd that the store has seen

	watcher *unitwatch.Watcher
	hints   chan unitwatch.Hint

	running    *source // what the kernel has, or is being brought to; nil: nothing to go by
	snap       *unitwatch.Snapshot
	dp         opened // dp.dataPath is nil while there is no VIP
	rec        *lb.Reconciler
	desired    *lb.State // of desiredFor, with whatever membership
	desiredFor *source
	desiredOf  uint64 // the backends' version that it is of
	ready      bool
	pending    *reload // waits for a snapshot of its tree

	backends   *backendStates
	self       uint64 // the cgroup that is this process's alone; 0: there is none
	selfShared bool   // there are others in it

	mapped    latency
	timedSnap *unitwatch.Snapshot // the newest that mapped knows

	applied    bool  // the kernel equals running and snap
	applyErr   error // of the newest attempt
	attached   bool  // and the kernel's hints are read
	unkept     bool  // hooks were attached that the store was not told of
	unsynced   bool  // the watcher is to look at everything
	eventsLost uint64
	storeErr   error
	kept       time.Time
	wants      int // descriptors that belong in the store
	stored     storeCount
	counted    time.Time
	refill     refill
	failed     time.Time
	reloadErr  error
	writes     uint64
	said       string // the STATUS= of the newest message

	reloads chan *reload
	loads   chan loaded
	hup     <-chan os.Signal
	again   bool                 // SIGHUP came
	view    atomic.Pointer[view] // what the API answers from; anyone may load it
	apiErr  atomic.Pointer[string]

	// asking lets one request at a time read the maps: that keeps writes waiting,
	// and takes memory, and whoever may read may ask as often as he likes.
	asking sync.Mutex

	trim    atomic.Bool // much memory was used for a moment
	trimmed time.Time

	tasks sync.WaitGroup // of the data plane: its reconciler, the reader of its hints
}

// view is what the daemon knows, at one moment. It is immutable but for dp,
// which may be asked by anyone.
type view struct {
	source   *source
	snap     *unitwatch.Snapshot
	dp       dataPath
	problems []string
	notes    []string
	status   api.Status // without VIPs, groups and counters
	orders   map[lb.Endpoint]order
}

// reload is a wish to load the configuration again.
type reload struct {
	ctx    context.Context // the caller's
	until  time.Time       // zero: as long as ctx says
	done   chan reloaded   // buffered: nobody needs to listen
	source *source
	snap   *unitwatch.Snapshot // of its tree
	begun  time.Time
}

type reloaded struct {
	answer *api.Reloaded
	err    error
}

// loop is the reconcile loop: everything that changes something happens here,
// one thing at a time.
func (d *daemon) loop(ctx context.Context) error {
	defer d.shut()
	t := time.NewTicker(tick)
	defer t.Stop()
	lastPing := time.Now()
	ping := func() {
		if d.notify.watchdog > 0 && time.Since(lastPing) >= d.notify.watchdog/4 {
			lastPing = time.Now()
			if err := d.notify.send(nil, "WATCHDOG=1"); err != nil {
				d.log.Warn("watchdog", "err", err)
			}
		}
	}
	if d.running == nil {
		d.settle(ctx) // nothing will ask for it
	}
	for {
		if err := d.hopeless(); err != nil {
			return err
		}
		if d.again && d.pending == nil {
			d.again = false
			d.begin(ctx, &reload{ctx: ctx, done: make(chan reloaded, 1), until: time.Now().Add(hangupWait)})
		}
		d.publish()
		reloads := d.reloads
		if d.pending != nil {
			reloads = nil // one after the other
		}
		select {
		case <-ctx.Done():
			if err := d.notify.send(nil, "STOPPING=1"); err != nil {
				d.log.Warn("notify", "err", err)
			}
			return nil
		case snap := <-d.watcher.Updates():
			d.see(ctx, snap)
		case r := <-reloads:
			d.begin(ctx, r)
		case v := <-d.backends.checker.Verdicts():
			d.judge(ctx, v)
		case <-d.backends.next.C:
			d.soon(ctx)
		case c := <-d.backends.changes:
			d.change(ctx, c)
		case <-d.hup:
			d.again = true // also where one is under way: it may have read the files already
		case l := <-d.loads:
			d.load(l)
		case c := <-d.keeper.counts:
			d.count(ctx, c)
		case <-t.C:
			d.look(ctx)
		}
		ping()
	}
}

// hopeless is why a first start cannot succeed by trying again: the kernel or
// the process lacks something. One that was handed a data plane goes on trying.
func (d *daemon) hopeless() error {
	if d.ready || d.inherited || !errors.Is(d.applyErr, bpf.ErrNotSupported) {
		return nil
	}
	if errors.Is(d.applyErr, os.ErrPermission) {
		return &exitError{code: exitNotPermitted, err: d.applyErr, hint: "run it as root, or by its unit"}
	}
	return &exitError{code: exitBadConfig, err: d.applyErr, hint: "slicelb doctor says what this host lacks"}
}

// see takes a snapshot in.
func (d *daemon) see(ctx context.Context, snap *unitwatch.Snapshot) {
	if d.snap != nil && (snap.Reloads != d.snap.Reloads || snap.Mode != d.snap.Mode) {
		// systemd read its units again: it may have dropped the store.
		d.keeper.poke()
	}
	switch {
	case d.pending != nil && d.pending.source != nil && snap.Tree == d.pending.source.tree:
		d.pending.snap = snap
		d.tryFinish(ctx)
	case d.running != nil && snap.Tree == d.running.tree:
		d.snap = snap
		d.settle(ctx)
	}
	// Else it is about a configuration that came to nothing.
}

// settle brings the kernel to what runs, and says so when it is there.
func (d *daemon) settle(ctx context.Context) {
	if d.running != nil {
		if d.snap == nil || d.unchecked() {
			return
		}
		_, err := d.apply(ctx, d.running, d.snap)
		d.note(err)
		d.timed(d.snap)
	} else {
		d.note(d.adoptOnly(ctx))
	}
	if d.applyErr != nil {
		if !d.ready {
			d.tell("STATUS=not ready: " + d.applyErr.Error())
		}
		return
	}
	if !d.ready && (d.running == nil || d.snap.Complete) {
		d.keep(ctx, false)
		d.ready = true
		d.tell("READY=1", "STATUS="+d.summary())
		d.log.Info("ready", "summary", d.summary(), "took", time.Since(d.started).Round(time.Millisecond).String())
	} else if d.ready && d.unkept {
		d.keep(ctx, false) // attached after a reload that could not
	}
}

// timed counts how long it took from the kernel's event to the maps.
func (d *daemon) timed(snap *unitwatch.Snapshot) {
	if d.applied && snap != d.timedSnap && !snap.Hinted.IsZero() {
		d.mapped.add(time.Since(snap.Hinted))
	}
	if d.applied {
		d.timedSnap = snap
	}
}

// note remembers how the newest attempt went, and says it once.
func (d *daemon) note(err error) {
	switch {
	case err != nil && (d.applyErr == nil || d.applyErr.Error() != err.Error()):
		d.log.Error("bring the kernel to the configuration", "err", err)
	case err == nil && d.applyErr != nil:
		d.log.Info("the kernel has the configuration")
	}
	d.applyErr = err
	d.applied = err == nil
}

// apply makes the kernel equal to src and snap. Nothing is loaded or attached
// before there is a VIP. The maps are filled before the first hook is attached,
// so that no call meets a half of them.
func (d *daemon) apply(ctx context.Context, src *source, snap *unitwatch.Snapshot) (writes int, err error) {
	if d.dp.dataPath == nil && len(src.cfg.VIPs) == 0 && len(d.handed) == 0 {
		return 0, nil
	}
	state, err := d.compile(src, snap)
	if err != nil {
		return 0, err
	}
	if err := d.openPath(ctx, src.cfg); err != nil {
		return 0, err
	}
	result, err := d.rec.Reconcile(ctx, state)
	writes = result.Writes
	d.writes += uint64(writes)
	if err != nil || d.attached || !snap.Complete {
		return writes, err
	}
	return writes, d.attach(ctx)
}

// compile keeps what follows from the configuration and the backends' states: a
// cgroup that comes or goes costs nothing for each VIP.
func (d *daemon) compile(src *source, snap *unitwatch.Snapshot) (*lb.State, error) {
	members := membership(snap)
	members.Self = d.self
	now, b := time.Now(), d.backends
	if d.desired != nil && d.desiredFor == src && d.desiredOf == b.version && !b.due(now) {
		return d.desired.WithMembers(members), nil
	}
	state, err := lb.Compile(src.cfg, src.tree, members, b.runtime(src, now))
	if err != nil {
		return nil, err
	}
	d.desired, d.desiredFor, d.desiredOf = state, src, b.version
	return state, nil
}

// openPath opens the data plane, with what was handed over.
func (d *daemon) openPath(ctx context.Context, cfg *config.Config) error {
	if d.dp.dataPath != nil {
		return nil
	}
	named, err := copies(d.handed)
	if err != nil {
		return err
	}
	opts := bpf.Options{Log: d.log, Build: d.build}
	if cfg != nil {
		opts.Slots, opts.UDPFlows = cfg.Daemon.Slots, cfg.Daemon.UDPFlows
	}
	dp, err := d.open(opts, named)
	if err != nil {
		if !errors.Is(err, bpf.ErrForeign) {
			return fmt.Errorf("load the data plane: %w", err)
		}
		return err
	}
	if err := closeAll(d.handed); err != nil {
		d.log.Warn("descriptors that were handed over", "err", err)
	}
	d.handed = nil
	if dp.lost != nil {
		d.log.Error("what the process before left cannot be adopted; a new data plane takes its place", "err", dp.lost)
	}
	d.dp, d.rec = dp, lb.NewReconciler(dp, d.log)
	d.tasks.Go(func() {
		// It ends with the context alone.
		if err := d.rec.Run(ctx); err != nil {
			d.log.Error("reconciler", "err", err)
		}
	})
	if dp.adopted {
		d.log.Info("adopted the data plane of the process before")
	}
	return nil
}

// adoptOnly takes over what was handed when there is no configuration to go
// by: what it serves, it goes on serving.
func (d *daemon) adoptOnly(ctx context.Context) error {
	if err := d.openPath(ctx, nil); err != nil {
		return err
	}
	if d.attached {
		return nil
	}
	return d.attach(ctx)
}

// attach runs the programs. The kernel maps new cgroups from here on; one that
// was made between the walk and this is found by another walk.
func (d *daemon) attach(ctx context.Context) error {
	if err := d.dp.Attach(d.rootDir); err != nil {
		return err
	}
	h, err := d.dp.Hints()
	if err != nil {
		return err // tried again: what is attached stays so
	}
	d.attached, d.unkept = true, true
	d.tasks.Go(func() { d.read(ctx, h) })
	context.AfterFunc(ctx, func() { h.Close() })
	d.resync()
	return nil
}

// read passes the kernel's hints on until the data plane is closed. A watcher
// that is behind gets one look at everything in place of them all.
func (d *daemon) read(ctx context.Context, h hints) {
	for {
		e, err := h.Read()
		if err != nil {
			return
		}
		hint := unitwatch.Hint{ID: e.ID, Parent: e.Parent, Kind: unitwatch.HintMkdir, At: fromMonotonic(e.Time)}
		if e.Kind == bpf.Rmdir {
			hint.Kind = unitwatch.HintRmdir
		}
		select {
		case d.hints <- hint:
			continue
		default:
		}
		select {
		case d.hints <- unitwatch.Hint{Kind: unitwatch.HintLost}:
		case <-ctx.Done():
			return
		}
	}
}

// resync has the watcher look at everything, now or at the next tick.
func (d *daemon) resync() {
	select {
	case d.hints <- unitwatch.Hint{Kind: unitwatch.HintLost}:
		d.unsynced = false
	default:
		d.unsynced = true
	}
}

// look is done at every tick.
func (d *daemon) look(ctx context.Context) {
	if p := d.pending; p != nil && (p.ctx.Err() != nil || !p.until.IsZero() && time.Now().After(p.until)) {
		d.giveUp(api.Errorf(api.Timeout, "reload: not done in time; running configuration unchanged"))
	}
	d.tryFinish(ctx)
	d.saveVerdicts()
	d.say()
	if d.ready && time.Since(d.trimmed) > trimInterval && d.trim.Swap(false) {
		d.trimmed = time.Now()
		debug.FreeOSMemory()
	}
	if d.unsynced {
		d.resync()
	}
	if !d.applied {
		d.settle(ctx)
	}
	if d.ready && d.unkept {
		d.keep(ctx, false) // attached by a reload that came to nothing
	}
	d.lockHeld = holds(d.lock, d.lock.Name())
	if d.attached {
		if st, err := d.dp.Stats(); err == nil && st.EventsLost != d.eventsLost {
			d.eventsLost = st.EventsLost
			d.resync()
		}
		if err := d.dp.Check(); err != nil {
			d.log.Error("a hook is not ours any more; attaching again", "err", err)
			if err := d.dp.Attach(d.rootDir); err != nil {
				d.note(err)
			} else {
				d.keep(ctx, false)
				d.resync()
			}
		}
	}
	if d.ready && d.notify.managed() {
		if d.storeErr != nil && time.Since(d.kept) > storeInterval {
			d.keep(ctx, true)
		}
		whole := d.stored.err == nil && int(d.stored.held) >= d.wants
		if !whole && time.Since(d.counted) > storeInterval {
			d.counted = time.Now()
			d.keeper.poke()
		}
	}
}

// membership is a snapshot in the words of package lb.
func membership(s *unitwatch.Snapshot) lb.Membership {
	m := lb.Membership{Complete: s.Complete, Walked: s.Walked, Cgroups: make([]lb.Member, len(s.Cgroups))}
	for i, c := range s.Cgroups {
		m.Cgroups[i] = lb.Member{ID: c.ID, Path: c.Path, Match: c.Match, Group: c.Group}
	}
	return m
}

// wanted is what the store should hold.
func (d *daemon) wanted() []stored {
	var want []stored
	if d.dp.dataPath != nil {
		for _, f := range d.dp.FDs() {
			want = append(want, stored{Name: f.Name, FD: f.FD, Poll: f.Poll})
		}
	} else {
		want = slices.Clone(d.handed) // nobody has taken them: they stay
	}
	if d.state != nil {
		want = slices.DeleteFunc(want, func(f stored) bool { return isLastGood(f.Name) })
		want = append(want, stored{Name: d.good.name(), FD: int(d.state.Fd())})
	}
	for _, f := range d.heirless {
		if !d.replaced(f) && !slices.ContainsFunc(want, func(w stored) bool { return w.Name == f.Name }) {
			want = append(want, f)
		}
	}
	return append(want, d.backends.wanted()...)
}

// replaced says whether this process has a state in the place of one that was
// handed over. Until then the old one stays in the store, also where this version
// cannot read it: another may.
func (d *daemon) replaced(f stored) bool {
	return isLastGood(f.Name) && d.state != nil || isRuntime(f.Name) && d.backends.stateFile != nil
}

// keep brings the descriptor store up to date.
func (d *daemon) keep(ctx context.Context, refill bool) {
	want := d.wanted()
	d.wants, d.unkept = len(want), false
	d.heirless = slices.DeleteFunc(d.heirless, func(f stored) bool {
		old := d.replaced(f)
		if old {
			unix.Close(f.FD) // nothing was written through it
		}
		return old
	})
	err := d.store.sync(ctx, want, refill)
	if err != nil && (d.storeErr == nil || err.Error() != d.storeErr.Error()) {
		d.log.Error("keep the data plane in the descriptor store", "err", err)
	}
	d.storeErr, d.kept = err, time.Now()
	d.keeper.poke()
}

// count hears how many descriptors the manager holds.
func (d *daemon) count(ctx context.Context, c storeCount) {
	d.counted = time.Now()
	d.stored = c
	if !d.ready || c.err != nil {
		return
	}
	want := d.wants
	if int(c.held) >= want {
		d.refill = refill{}
		return
	}
	if !d.refill.due(c, want, time.Now()) {
		return
	}
	d.log.Warn("the descriptor store has lost descriptors; storing them again", "held", c.held, "want", want, "max", c.max)
	d.keep(ctx, true)
}

// refill is the newest attempt at making the store whole.
type refill struct {
	at  time.Time
	max uint32 // what the store could hold then
}

// due decides whether to try again: at once when the limit is another one, never
// where it is known to be too low, else now and then.
func (r *refill) due(c storeCount, want int, now time.Time) bool {
	again := r.at.IsZero() || c.max != r.max || int(c.max) >= want && now.Sub(r.at) >= storeInterval
	if again {
		*r = refill{now, c.max}
	}
	return again
}

// held says whether the data plane outlives this process.
func (d *daemon) held() api.Held {
	h := api.Held{Count: int(d.stored.held), Want: d.wants}
	switch {
	case !d.notify.managed():
		h.Reason = "not started by a service manager"
	case d.storeErr != nil:
		h.Reason = d.storeErr.Error()
	case !d.ready:
		h.Reason = "not ready yet"
	case d.stored.err != nil:
		// Sent, received, and not countable: without a bus nobody can say more.
		h.Store, h.Reason = true, d.stored.err.Error()
	case h.Count >= h.Want:
		h.Store = true
	case int(d.stored.max) < h.Want:
		h.Reason = fmt.Sprintf("the unit's FileDescriptorStoreMax=%d is less than %d", d.stored.max, h.Want)
	default:
		h.Reason = fmt.Sprintf("systemd holds %d of %d descriptors", h.Count, h.Want)
	}
	return h
}

// tell informs the manager; that it cannot be told is logged only.
func (d *daemon) tell(lines ...string) {
	if err := d.notify.send(nil, lines...); err != nil {
		d.log.Warn("notify", "err", err)
	}
}

// summary is the line in systemctl status.
func (d *daemon) summary() string {
	if d.running == nil {
		return "serving what was adopted, without a configuration"
	}
	backends := 0
	for _, v := range d.running.cfg.VIPs {
		backends += len(v.Backends)
	}
	s := fmt.Sprintf("%s, %s, %s", plural(len(d.running.cfg.VIPs), "VIP"), plural(backends, "backend"), plural(len(d.running.cfg.Groups), "group"))
	if d.snap != nil {
		s += ", " + plural(len(d.snap.Cgroups), "cgroup")
	}
	if d.running.lastGood {
		s += "; LAST GOOD configuration: the files have errors"
	} else if d.reloadErr != nil {
		s += "; the last reload FAILED"
	}
	if d.applyErr != nil {
		s += "; the kernel does not have the newest state: " + d.applyErr.Error()
	}
	if text := d.apiErr.Load(); text != nil {
		s += "; " + *text
	}
	return s
}

// say keeps the line in systemctl status true.
func (d *daemon) say() {
	if s := d.summary(); d.ready && s != d.said {
		d.said = s
		d.tell("STATUS=" + s)
	}
}

// shut ends what the loop owns. What the store holds stays in the kernel.
func (d *daemon) shut() {
	if d.pending != nil {
		d.giveUp(api.Errorf(api.Failed, "reload: the daemon stops"))
	}
	d.tasks.Wait()
	if d.dp.dataPath != nil {
		if err := d.dp.Close(); err != nil {
			d.log.Warn("close the data plane", "err", err)
		}
	}
}
