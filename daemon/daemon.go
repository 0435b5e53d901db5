// Package daemon is what slicelb serve runs: it keeps the kernel at what the
// configuration, the cgroups, the units and the health checks say, answers the API
// from what it knows, and has the service manager keep the data plane for the
// process after it.
//
// It owns the running configuration, the reconcile loop and the descriptors of the
// data plane. Packages config, unitwatch, health and discover tell it what is
// wanted, as values that nobody changes; the loop, one goroutine, is the only one
// that writes to the maps, through package lb, and to the descriptor store. The
// loop publishes a view after each step, and requests read that and the kernel's
// counters, never the loop's own state; what they wish is sent to the loop. Only
// the log is written here: what to print and how to exit is the command's.
package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/observe"
	"github.com/slicelb/slicelb/unitwatch"
)

// tick is how often the loop looks after what nobody tells it of: a link that
// somebody severed, a write to try again, the watchdog.
const tick = 500 * time.Millisecond

// trimInterval is how often memory that was used for a moment is given back.
const trimInterval = 10 * time.Second

// daemon keeps the kernel at what the configuration and the cgroups say. Run's
// goroutine owns every field but those that say otherwise; it is the only one
// that writes to the maps.
type daemon struct {
	log        *slog.Logger
	level      *slog.LevelVar
	notify     *fdstore.Notifier
	open       openDataPath
	root       unitwatch.Root
	rootLevel  int // of the cgroup root in the whole hierarchy
	rootDir    *os.File
	configPath string
	socket     string
	version    string
	lock       *os.File
	lockHeld   bool // the lock file is still the one that is locked
	rootShared bool // another process has the cgroup root's lock
	started    time.Time
	listening  time.Time // since when the loop hears what there is; to load the programs took the time before

	handed    []fdstore.FD // of a data plane, until one is opened
	build     string       // bpf.Build of what was handed
	before    bool         // a data plane was among it, which serves on
	inherited bool         // this process was handed something: it must not exit 78 or 2
	state     *os.File     // the sealed memfd of the newest last good
	heirless  []fdstore.FD // memfds that were handed over, until one of this process takes their place
	good      *lastGood    // what is in it
	fallback  *lastGood    // what the process before served, until this one is ready
	files     *source      // what a start read, while the kernel cannot be given it; nil else
	states    uint64       // generation of the newest memfd that the store has seen
	kept      kept

	watcher *unitwatch.Watcher
	hints   chan unitwatch.Hint

	running    *source // what the kernel has, or is being brought to; nil: nothing to go by
	snap       *unitwatch.Snapshot
	dp         opened // dp.dataPath is nil while there is no VIP
	rec        *lb.Reconciler
	desired    *lb.State // of desiredFor, with whatever membership
	desiredFor *source
	desiredOf  uint64         // the backends' version that it is of
	kernel     *lb.State      // the newest that the kernel took
	kernelSaid *config.Config // that it is of, as the files have it
	cramped    cramped
	found      map[lb.Endpoint]bool // backends that it had before; nil: nobody has looked
	part       *part                // what there is room for, of what had none; nil: there is room
	room       room
	broken     broken
	ready      bool
	pending    *reload // waits for a snapshot of its tree

	observer *observe.Observer
	refusals *refusals
	vips     vipStates

	timingErr error // of the newest try to have connects timed
	hooksErr  error // why hooks are not ours, and could not be attached again

	backends   *backendStates
	units      *discover.Units // what is known; nil: nothing yet
	unitsAsked *discover.Units // the newest that systemd itself said
	self       uint64          // the cgroup that is this process's alone; 0: there is none
	selfShared bool            // there are others in it

	left       int // cgroups for which the kernel's table has no room
	mapped     latency
	reconciled latency
	web        web                 // the page and the metrics
	timedSnap  *unitwatch.Snapshot // the newest that mapped knows

	applied    bool               // the kernel equals running and snap
	applyErr   error              // of the newest attempt
	attached   bool               // and the kernel's hints are read
	traited    *source            // whose traits the backends have
	hooked     []string           // optional hooks that are attached too; nil: those that were adopted
	unsynced   unitwatch.HintKind // why the watcher is to look at everything; 0: it is not
	eventsLost uint64
	failing    string    // what reloadErr ended: "start" or "reload"
	failed     time.Time // when
	reloadErr  error
	writes     uint64
	said       string    // the STATUS= of the newest message
	pinged     time.Time // the watchdog

	reloads chan *reload
	loads   chan loaded
	hup     <-chan os.Signal
	again   bool                 // SIGHUP came
	view    atomic.Pointer[view] // what the API answers from; anyone may load it
	opening opening              // anyone may wait for it
	apiErr  atomic.Pointer[string]
	swept   atomic.Pointer[terminated] // anyone may load it

	live   liveIndex
	asking sync.Mutex // held by the request that reads the maps: answers.readMaps

	trim    atomic.Bool // much memory was used for a moment
	trimmed time.Time

	tasks sync.WaitGroup // of the data plane: its reconciler, the reader of its hints
}

// loop is the reconcile loop: everything that changes something happens here,
// one thing at a time.
func (d *daemon) loop(ctx context.Context) error {
	defer d.shut()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // shut waits for what ends with it
	t := time.NewTicker(tick)
	defer t.Stop()
	d.pinged = time.Now()
	switch {
	case d.running == nil:
		d.settle(ctx) // nothing will ask for it
	case len(d.handed) > 0 || !d.running.cfg.Idle():
		// The programs load while the watcher walks. What fails is tried again with
		// the first snapshot.
		if err := d.openPath(ctx, d.running.cfg); err != nil {
			d.note(err)
		}
	}
	d.listening = time.Now()
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
		changes := d.backends.changes
		if !d.takesOrders() {
			changes = nil
		}
		select {
		case <-ctx.Done():
			if err := d.notify.Send("STOPPING=1"); err != nil {
				d.log.Warn("notify", "err", err)
			}
			return nil
		case snap := <-d.watcher.Updates():
			d.see(ctx, snap)
		case r := <-reloads:
			d.begin(ctx, r)
		case u := <-d.watcher.Units():
			d.seeUnits(ctx, u)
		case v := <-d.backends.checker.Verdicts():
			d.judge(ctx, v)
		case <-d.backends.next.C:
			d.soon(ctx)
		case c := <-changes:
			d.change(ctx, c)
		case <-d.backends.patience():
		case <-d.hup:
			d.again = true // also where one is under way: it may have read the files already
		case l := <-d.loads:
			d.load(l)
		case c := <-d.kept.counter.Counts():
			d.count(ctx, c)
		case <-t.C:
			d.look(ctx)
		}
		d.carryOut(ctx)
		d.ping()
	}
}

// hopeless is why a first start cannot succeed by trying again: the kernel or
// the process lacks something, which is a bpf.ErrNotSupported, or the kernel cannot be
// given the configuration. One that was handed a data plane goes on trying.
func (d *daemon) hopeless() error {
	switch why := unfit(d.applyErr); {
	case d.ready || d.inherited:
		return nil
	case why != nil:
		return &ConfigError{why.Error()}
	case errors.Is(d.applyErr, bpf.ErrNotSupported):
		return d.applyErr
	}
	return nil
}

// see takes a snapshot in.
func (d *daemon) see(ctx context.Context, snap *unitwatch.Snapshot) {
	if d.snap != nil && (snap.Reloads != d.snap.Reloads || snap.Mode != d.snap.Mode) {
		// systemd read its units again: it may have dropped the store.
		d.kept.counter.Poke()
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
		if d.snap == nil || d.unchecked() || !d.ready && d.unitsAwaited(d.running, d.listening) {
			return
		}
		_, err := d.apply(ctx, d.running, d.snap)
		d.note(err)
		d.timed(d.snap)
	} else {
		d.note(d.adoptOnly(ctx))
	}
	if why := unfit(d.applyErr); why != nil && !d.ready && d.inherited && d.running != nil {
		d.fallBack(ctx, why)
		return
	}
	// A data plane that this version does not know serves on as it is: the start has
	// not failed, and the store must not be dropped.
	if d.applyErr != nil && !errors.Is(d.applyErr, bpf.ErrLayout) {
		if !d.ready {
			d.tell("STATUS=not ready: " + d.applyErr.Error())
		}
		return
	}
	if !d.ready && (d.running == nil || d.snap.Complete) {
		d.nowReady(ctx)
	} else if d.ready && d.kept.behind {
		d.keep(ctx, false) // attached after a reload that could not
	}
	d.settled(ctx)
}

func (d *daemon) nowReady(ctx context.Context) {
	d.keep(ctx, false)
	d.ready, d.fallback = true, nil
	d.tell("READY=1", "STATUS="+d.summary())
	d.log.Info("ready", "summary", d.summary(), "took", time.Since(d.started).Round(time.Millisecond).String())
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

// look is done at every tick.
func (d *daemon) look(ctx context.Context) {
	if p := d.pending; p != nil && (p.ctx.Err() != nil || !p.until.IsZero() && time.Now().After(p.until)) {
		d.giveUp(api.Errorf(api.Timeout, "reload: not done in time; running configuration unchanged"))
	}
	d.tryFinish(ctx)
	d.timing()
	d.saveVerdicts()
	d.say()
	d.lookAtMemory()
	if d.unsynced != 0 {
		d.resync(d.unsynced)
	}
	d.retryPart(time.Now())
	d.retryCramped(time.Now())
	if !d.applied {
		d.settle(ctx)
	} else if d.backends.due(time.Now()) {
		d.soon(ctx) // a drain has lasted for long enough
	}
	if d.ready && d.kept.behind {
		d.keep(ctx, false) // attached by a reload that came to nothing
	}
	if d.rootShared {
		if alone, err := lockRoot(d.rootDir); err == nil {
			d.rootShared = !alone
		}
	}
	d.lockHeld = holds(d.lock, d.lock.Name())
	d.lookAtHooks(ctx)
	d.lookAtStore(ctx)
}

// lookAtMemory gives back what was used for a moment.
func (d *daemon) lookAtMemory() {
	if d.ready && time.Since(d.trimmed) > trimInterval && d.trim.Swap(false) {
		d.trimmed = time.Now()
		debug.FreeOSMemory()
	}
}

// shut ends what the loop owns. What the store holds stays in the kernel.
func (d *daemon) shut() {
	if d.pending != nil {
		d.giveUp(api.Errorf(api.Failed, "reload: the daemon stops"))
	}
	d.backends.giveUp()
	d.tasks.Wait()
	if d.dp.dataPath != nil {
		if err := d.dp.Close(); err != nil {
			d.log.Warn("close the data plane", "err", err)
		}
	}
}
