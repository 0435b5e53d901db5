package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/unitwatch"
)

// A reload has two steps, because the cgroups must be matched against the new
// groups before anything is compiled: begin loads and hands the watcher the new
// tree, finish applies with the first snapshot of that tree. Until then, and
// whenever something fails, what ran before runs on.

func (d *daemon) begin(ctx context.Context, r *reload) {
	d.tell(reloading()...)
	r.begun = time.Now()
	d.pending = r
	cfg, warnings, err := enforced(d.configPath)
	if err != nil {
		var bad *config.Error
		text := err.Error()
		if errors.As(err, &bad) {
			text = "bad configuration\n" + problems(warnings, bad) + plural(len(bad.Problems), "error")
		}
		d.giveUp(&api.Error{Code: api.BadConfig, Text: text + "; running configuration unchanged"})
		return
	}
	src, err := newSource(cfg, warnings)
	if err != nil {
		d.giveUp(api.Errorf(api.BadConfig, "%v; running configuration unchanged", err))
		return
	}
	r.source = src
	d.watcher.SetTree(src.tree)
}

// finish applies the configuration that waits.
func (d *daemon) finish(ctx context.Context, snap *unitwatch.Snapshot) {
	r := d.pending
	n, err := d.apply(ctx, r.source, snap)
	if err != nil {
		if d.running != nil && d.snap != nil {
			// What was written of it is taken back.
			if _, back := d.apply(ctx, d.running, d.snap); back != nil {
				d.note(back)
			}
		}
		d.giveUp(api.Errorf(api.BadConfig, "apply: %v; running configuration unchanged", err))
		return
	}
	d.pending = nil
	d.running, d.snap = r.source, snap
	d.failed, d.reloadErr = time.Time{}, nil
	d.note(nil)
	if err := d.remember(); err != nil {
		d.log.Error("remember the configuration", "err", err)
		d.storeErr = err
	} else {
		d.keep(ctx, false)
	}
	took := time.Since(r.begun)
	d.log.Info("reloaded", "summary", d.summary(), "writes", n, "took", took.Round(time.Microsecond).String())
	d.ready = true
	d.tell("READY=1", "STATUS="+d.summary())
	r.done <- reloaded{answer: &api.Reloaded{
		Writes: n, Took: took, VIPs: len(r.source.cfg.VIPs), Groups: len(r.source.cfg.Groups), Warnings: r.source.warnings,
	}}
}

// giveUp ends the reload that waits; what ran before runs on.
func (d *daemon) giveUp(err *api.Error) {
	r := d.pending
	d.pending = nil
	if r.source != nil && d.running != nil {
		d.watcher.SetTree(d.running.tree)
	}
	d.failed, d.reloadErr = time.Now(), err
	d.log.Error("reload failed; running configuration unchanged", "err", err)
	d.publish()
	d.tell("READY=1", "STATUS="+d.summary())
	r.done <- reloaded{err: err}
}

// remember seals what runs for the process after this one.
func (d *daemon) remember() error {
	text, err := render(d.running.cfg, true)
	if err != nil {
		return fmt.Errorf("last good configuration: %w", err)
	}
	d.states++
	next := &lastGood{Generation: d.states, Path: d.path(), Files: d.running.cfg.Files, Loaded: d.running.loaded, TOML: text}
	f, err := next.seal()
	if err != nil {
		return err
	}
	if d.state != nil {
		old := d.state
		defer old.Close()
	}
	d.state, d.good = f, next
	return nil
}

// path is where the configuration comes from, as people name it.
func (d *daemon) path() string {
	if d.configPath == "" {
		return "/etc/slicelb"
	}
	return d.configPath
}
