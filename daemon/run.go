package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/unitwatch"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// socketGroup may read the API.
const socketGroup = "slicelb"

// Options are what a daemon is told by who starts it.
type Options struct {
	Config     string // file or folder; "" = the installed tree
	Socket     string // of the API; the lock lies beside it
	CgroupRoot string // "" = where cgroup2 is mounted
	Version    string // for status
	Log        io.Writer

	// The environment: the service manager's variables are read, and taken out so
	// that no child has them.
	Lookup func(string) (string, bool)
	Unset  func(string) error

	// Hangup has the configuration loaded again.
	Hangup <-chan os.Signal

	open openDataPath // a test's; nil: the kernel
}

// ConfigError is why a first start has no configuration to serve: the text names
// everything that is wrong.
type ConfigError struct{ text string }

func (e *ConfigError) Error() string { return e.text }

// Run is the daemon's life. It ends without an error when ctx does, and before that
// only where trying again is of no use: with a *ConfigError, a
// *unitwatch.RootError, ErrRunning or bpf.ErrNotSupported, or because the system
// refuses what every start needs.
func Run(ctx context.Context, o Options) error {
	level := new(slog.LevelVar)
	stream, _ := o.Lookup("JOURNAL_STREAM")
	log := slog.New(newJournal(o.Log, stream != "", level))
	if o.Config != "" { // what is answered must mean the same to everybody
		var err error
		if o.Config, err = filepath.Abs(o.Config); err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
	}
	handed, err := fdstore.Take(o.Lookup, o.Unset)
	if err != nil {
		log.Error("descriptor store", "err", err)
	}
	if err := os.MkdirAll(filepath.Dir(o.Socket), 0o755); err != nil {
		return fmt.Errorf("runtime folder: %w", err)
	}
	lock, err := takeLock(filepath.Dir(o.Socket))
	if err != nil {
		return err
	}
	defer lock.Close()
	root, err := unitwatch.OpenRoot(o.CgroupRoot)
	if err != nil {
		return err
	}
	dir, err := os.Open(root.Path)
	if err != nil {
		return fmt.Errorf("cgroup root: %w", err)
	}
	defer dir.Close()
	notify := fdstore.NewNotifier(o.Lookup)
	sole, err := lockRoot(dir)
	if err != nil {
		log.Warn("cgroup root", "err", err)
		sole = true
	}
	if !sole && !notify.Managed() {
		return fmt.Errorf("%w: it holds %s", ErrRunning, root.Path)
	}
	if o.open == nil {
		o.open = openKernel
	}

	store := fdstore.New(notify, handed, askStore)
	d := &daemon{
		log: log, level: level, notify: notify, kept: newKept(store), open: o.open, version: o.Version,
		root: root, rootDir: dir, configPath: o.Config, socket: o.Socket, lock: lock, lockHeld: true, rootShared: !sole, started: time.Now(),
		handed: handed, hints: make(chan unitwatch.Hint, hintBuffer), reloads: make(chan *reload), loads: make(chan loaded),
		backends: newBackendStates(), hup: o.Hangup, opening: opening{passed: make(chan struct{})},
	}
	d.observer, d.refusals = d.newObserver()
	d.findSelf()
	d.findLevel()
	if err := d.start(); err != nil {
		return err
	}
	return d.run(ctx)
}

// run starts the daemon's goroutines, and returns when all have ended.
func (d *daemon) run(ctx context.Context) error {
	tree := emptyTree()
	if d.running != nil {
		tree = d.running.tree
	}
	d.watcher = unitwatch.New(unitwatch.Options{CgroupRoot: d.root.Path, Tree: tree, Hints: d.hints, Log: d.log})
	d.followUnits()
	d.publish()

	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return d.watcher.Run(ctx) })
	tasks.Go(func() error { return d.kept.counter.Run(ctx) })
	tasks.Go(func() error { return d.backends.checker.Run(ctx) })
	tasks.Go(func() error { return d.refusals.run(ctx) })
	tasks.Go(func() error { return d.serveAPI(ctx) })
	tasks.Go(func() error { return d.serveWeb(ctx) })
	context.AfterFunc(ctx, d.observer.End)
	tasks.Go(func() error { return d.loop(ctx) })
	return tasks.Wait()
}

// hintBuffer is how many of the kernel's events may wait for the watcher.
const hintBuffer = 4096

// start chooses what to serve: the files, or, where they have errors and an
// earlier process left a data plane, what that one served.
func (d *daemon) start() error {
	good, err := newestLastGood(d.handed)
	if err != nil {
		d.log.Error("stored state", "err", err)
	}
	if err := d.backends.restore(d.handed); err != nil {
		d.log.Error("stored state", "err", err)
	}
	d.units = d.backends.units
	d.fallback = good
	d.good, d.states, d.inherited = good, highestGeneration(d.handed), len(d.handed) > 0
	if good != nil {
		d.build = good.Build
	}
	var newest uint64
	if good != nil {
		newest = good.Generation
	}
	d.handed = slices.DeleteFunc(d.handed, func(f fdstore.FD) bool {
		state := isLastGood(f.Name) || isRuntime(f.Name)
		switch {
		case !state:
		case older(f.Name, lastGoodName, newest) || older(f.Name, runtimeName, d.backends.restored):
			d.kept.store.Disown(f.Name)
			unix.Close(f.FD) // nothing was written through it
		default:
			d.heirless = append(d.heirless, f)
		}
		return state
	})
	d.before = len(d.handed) > 0
	before := d.served(good)
	cfg, warnings, err := readConfig(d.configPath)
	if err == nil && (before != nil || len(d.handed) > 0) {
		err = before.replacedBy(cfg)
	}
	if err == nil {
		var src *source
		if src, err = newSource(cfg, warnings); err == nil {
			err = src.broken
		}
		if err == nil {
			src = src.with(d.units)
			src.after(before, d.inherited)
			d.backends.watch(src, before)
			d.backends.forget(src)
			d.use(src)
			return d.remember()
		}
	}
	text := refusal(warnings, err)
	if !d.inherited {
		return &ConfigError{text}
	}
	d.failing, d.failed, d.reloadErr = "start", time.Now(), errors.New(text)
	if good == nil {
		d.log.Error("the files have errors and no last good configuration was stored: what the kernel has goes on", "err", text)
		return nil
	}
	d.log.Error("the files have errors: serving the last good configuration", "loaded", good.Loaded, "err", text)
	return d.restore(good)
}

// restore makes what was stored run again.
func (d *daemon) restore(good *lastGood) error {
	cfg, err := config.Parse("last good configuration", []byte(good.TOML))
	if err != nil {
		d.log.Error("the last good configuration cannot be read: what the kernel has goes on", "err", err)
		return nil
	}
	cfg.Files = good.Files
	src, err := newSource(cfg, nil)
	if err != nil {
		d.log.Error("the last good configuration cannot be used: what the kernel has goes on", "err", err)
		return nil
	}
	src.lastGood, src.loaded, src.stands = true, good.Loaded, standingOf(good.Standing)
	if src.broken != nil {
		d.log.Error("some backends are not checked: their last verdict stands", "err", src.broken)
	}
	src = src.with(d.units)
	d.backends.watch(src, src)
	d.backends.forget(src)
	d.use(src)
	return d.remember()
}

// served is what an earlier process served, as far as its backends go; nil:
// nobody knows.
func (d *daemon) served(good *lastGood) *source {
	if good == nil {
		return nil
	}
	cfg, err := config.Parse("last good configuration", []byte(good.TOML))
	if err != nil {
		return nil
	}
	cfg.Files = good.Files
	return (&source{cfg: cfg, said: cfg, patterns: cfg.UnitPatterns(), stands: standingOf(good.Standing)}).with(d.units)
}

// use makes src what runs, as far as user space goes.
func (d *daemon) use(src *source) {
	d.running = src
	d.web.want(src.cfg.Daemon.HTTP)
	d.followUnits()
	var level slog.Level
	if err := level.UnmarshalText([]byte(src.cfg.Daemon.LogLevel)); err == nil {
		d.level.Set(level)
	}
}

// emptyTree expects nothing.
func emptyTree() *anchor.Tree {
	t, err := anchor.Compile(nil)
	if err != nil {
		panic(err) // nothing was asked for
	}
	return t
}

// serveAPI answers at the socket. Where the socket cannot be made the daemon
// serves without it and tries again: a full /run must not end a data plane.
func (d *daemon) serveAPI(ctx context.Context) error {
	for said := ""; ; {
		ln, err := api.Listen(d.socket, groupID(socketGroup))
		if errors.Is(err, fs.ErrPermission) {
			// The unit's user is no member of the group where they were renamed.
			ln, err = api.Listen(d.socket, -1)
		}
		if err == nil {
			d.apiErr.Store(nil)
			return (&api.Server{Daemon: answers{d}, Log: d.log, Metrics: d.web.metrics(d)}).Serve(ctx, ln)
		}
		text := fmt.Sprintf("the API is not served: %v", err)
		d.apiErr.Store(&text)
		if text != said {
			d.log.Error("the API is not served; trying again", "err", err)
			said = text
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// groupID is a group's number, or -1 where there is none of that name.
func groupID(name string) int {
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1
	}
	id, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return id
}
