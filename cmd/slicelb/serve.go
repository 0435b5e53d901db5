package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/unitwatch"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// socketGroup may read the API.
const socketGroup = "slicelb"

func newServe(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Run the daemon: read the configuration, follow systemd and the cgroup tree, and
keep the kernel at what both say. It is ready when every VIP is in the kernel.

Under systemd the data plane is kept in the unit's descriptor store: it goes on
through restarts, upgrades and kills, and ends with systemctl stop. Elsewhere it
ends with the process.

SIGHUP and slicelb reload load the configuration again; one with errors changes
nothing. At the first start a configuration with errors exits 78; a start that
finds a data plane of an earlier process serves that one's configuration then.`,
		Example: "  systemctl start slicelb\n  slicelb serve --config ./slicelb.toml --socket /tmp/slicelb.sock",
		Args:    exactly(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), g) },
	}
}

func serve(ctx context.Context, g *globals) (err error) {
	// Without this a panic, or the watchdog's SIGABRT, exits with status 2, which
	// prevents a restart; with it the process dies by the signal.
	debug.SetTraceback("crash")
	// Most of the heap lives long; what comes beside it is short of life and rare.
	debug.SetGCPercent(25)
	level := new(slog.LevelVar)
	log := slog.New(newJournal(g.stderr, g.getenv("JOURNAL_STREAM") != "", level))
	if g.config != "" { // what is answered must mean the same to everybody
		if g.config, err = filepath.Abs(g.config); err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
	}
	handed, err := takeStored(g.lookup, g.unset)
	if err != nil {
		log.Error("descriptor store", "err", err)
	}
	if err := os.MkdirAll(filepath.Dir(g.socket), 0o755); err != nil {
		return fmt.Errorf("runtime folder: %w", err)
	}
	lock, err := takeLock(filepath.Dir(g.socket))
	if err != nil {
		return err
	}
	defer lock.Close()
	root, err := findCgroupRoot(g.cgroupRoot)
	if err != nil {
		return err
	}
	dir, err := os.Open(root.Path)
	if err != nil {
		return fmt.Errorf("cgroup root: %w", err)
	}
	defer dir.Close()

	notify := newNotifier(g.lookup)
	d := &daemon{
		log: log, level: level, notify: notify, store: newFDStore(notify, handed), keeper: newKeeper(), open: g.open,
		root: root, rootDir: dir, configPath: g.config, socket: g.socket, lock: lock, lockHeld: true, started: time.Now(),
		handed: handed, hints: make(chan unitwatch.Hint, hintBuffer), reloads: make(chan *reload), loads: make(chan loaded),
		backends: newBackendStates(),
	}
	d.observer, d.refusals = d.newObserver()
	self, alone, err := findSelf(root.Path)
	if err != nil {
		log.Warn("own cgroup", "err", err)
	}
	if d.selfShared = self != 0 && !alone; alone {
		d.self = self
	}
	if err := d.start(); err != nil {
		return err
	}
	hup, stop := g.hup()
	defer stop()
	d.hup = hup

	tree := emptyTree()
	if d.running != nil {
		tree = d.running.tree
	}
	d.watcher = unitwatch.New(unitwatch.Options{CgroupRoot: root.Path, Tree: tree, Hints: d.hints, Log: log})
	d.followUnits()
	d.publish()

	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return d.watcher.Run(ctx) })
	tasks.Go(func() error { return d.keeper.run(ctx) })
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
	d.good, d.states, d.inherited = good, highestGeneration(d.handed), len(d.handed) > 0
	if good != nil {
		d.build = good.Build
	}
	d.handed = slices.DeleteFunc(d.handed, func(f stored) bool {
		state := isLastGood(f.Name) || isRuntime(f.Name)
		if state {
			d.heirless = append(d.heirless, f)
		}
		return state
	})
	cfg, warnings, err := enforced(d.configPath)
	if err == nil {
		var src *source
		if src, err = newSource(cfg, warnings); err == nil {
			err = src.broken
		}
		if err == nil {
			src = src.with(d.units)
			d.backends.watch(src, d.served(good))
			d.backends.forget(src)
			d.use(src)
			return d.remember()
		}
	}
	text := refusal(warnings, err)
	if !d.inherited {
		return &exitError{code: exitBadConfig, err: errors.New(text)}
	}
	d.failed, d.reloadErr = time.Now(), errors.New(text)
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
	src.lastGood, src.loaded = true, good.Loaded
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
	return (&source{cfg: cfg, said: cfg, patterns: cfg.UnitPatterns()}).with(d.units)
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
