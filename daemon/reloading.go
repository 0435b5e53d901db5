package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/unitwatch"
)

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

// A reload has three steps, and the loop goes on between them: begin has the
// files read, load hands the watcher the new tree, because the cgroups must be
// matched against the new groups before anything is compiled, and finish applies
// with the first snapshot of that tree. Until then, and whenever something
// fails, what ran before runs on.

// loaded is what became of the files.
type loaded struct {
	reload *reload
	source *source
	err    *api.Error
}

func (d *daemon) begin(ctx context.Context, r *reload) {
	d.tell(fdstore.Reloading()...)
	r.begun = time.Now()
	d.pending = r
	path := d.configPath
	d.tasks.Go(func() {
		src, err := loadSource(path)
		select {
		case d.loads <- loaded{r, src, err}:
		case <-ctx.Done():
		}
	})
}

// hangupWait is how long a reload by SIGHUP may take.
const hangupWait = time.Minute

func loadSource(path string) (*source, *api.Error) {
	cfg, warnings, err := readConfig(path)
	if err == nil {
		var src *source
		if src, err = newSource(cfg, warnings); err == nil {
			err = src.broken
		}
		if err == nil {
			return src, nil
		}
	}
	return nil, unchanged(errors.New(refusal(warnings, err)))
}

// unchanged is why a reload came to nothing.
func unchanged(err error) *api.Error {
	e := api.Errorf(api.BadConfig, "%v; running configuration unchanged", err)
	var lost *config.LostError
	if errors.As(err, &lost) {
		e.Hint = lost.Hint
	}
	return e
}

// readConfig reads the files; that others may change them is an error.
func readConfig(path string) (*config.Config, config.Warnings, error) {
	src, err := config.At(path)
	if err != nil {
		return nil, nil, err
	}
	src.Enforce = true
	return src.Load()
}

// refusal is everything that is wrong with the files.
func refusal(warnings config.Warnings, err error) string {
	var bad *config.Error
	if errors.As(err, &bad) {
		return bad.Explain(warnings)
	}
	var lost *config.LostError
	if errors.As(err, &lost) {
		return lost.Text + " (" + lost.Hint + ")"
	}
	return err.Error()
}

func (d *daemon) load(l loaded) {
	switch {
	case l.reload != d.pending:
		// Its caller has given up.
	case l.err != nil:
		d.giveUp(l.err)
	default:
		if err := d.running.replacedBy(l.source.said); err != nil {
			d.giveUp(unchanged(err))
			return
		}
		d.pending.source = l.source.with(d.units)
		d.followUnits()
		d.watcher.SetTree(l.source.tree)
		d.backends.watch(d.pending.source, d.running)
	}
}

// tryFinish goes on with a reload when there is a snapshot of its tree, and when
// what is new among its backends has been checked once, or did not answer: a
// backend takes the place of another without a gap.
func (d *daemon) tryFinish(ctx context.Context) {
	r := d.pending
	if r == nil || r.snap == nil {
		return
	}
	if d.unitsAwaited(r.source, r.begun) {
		return
	}
	if d.backends.waiting() && time.Since(r.begun) < r.source.firstChecks(reloadChecks) {
		return
	}
	d.finish(ctx, r.snap)
}

// finish applies the configuration that waits.
func (d *daemon) finish(ctx context.Context, snap *unitwatch.Snapshot) {
	r := d.pending
	d.publishLeaving(r.source)
	d.beginAudits(r.source)
	n, err := d.apply(ctx, r.source, snap)
	if err != nil {
		if d.running != nil && d.snap != nil {
			// What was written of it is taken back.
			if _, back := d.apply(ctx, d.running, d.snap); back != nil {
				d.note(back)
			}
		}
		code := api.Failed
		if unfit(err) != nil {
			code = api.BadConfig
		}
		d.giveUp(api.Errorf(code, "apply: %v; running configuration unchanged", err))
		return
	}
	d.pending = nil
	d.drained(ctx)
	r.source.after(d.running, d.inherited)
	d.use(r.source)
	d.snap = snap
	d.files, d.failed, d.reloadErr = nil, time.Time{}, nil
	d.note(nil)
	d.backends.watch(d.running, nil)
	for _, text := range d.backends.forget(d.running) {
		d.log.Info("the backend is gone, and what was said of it", "order", text)
	}
	d.kept.unsealed = true
	d.keep(ctx, false)
	if d.attached {
		// What was made between the watcher's look and the kernel's having the new
		// rules was announced by nobody.
		d.resync(unitwatch.HintAll)
	}
	warnings := slices.Clone(r.source.warnings)
	if n := r.source.emptied; n > 0 {
		warnings = append(warnings, emptiedText(n))
		d.log.Warn(emptiedText(n))
	}
	warnings = append(warnings, d.ranPart().problems()...)
	took := time.Since(r.begun)
	d.log.Info("reloaded", "event", eventReloaded, "summary", d.summary(), "writes", n, "took", took.Round(time.Microsecond).String())
	d.ready = true
	d.publish() // before the answer: who asks for the status next means this one
	d.tell("READY=1", "STATUS="+d.summary())
	r.done <- reloaded{answer: &api.Reloaded{
		Writes: n, Took: took, VIPs: len(r.source.cfg.VIPs), Groups: len(r.source.cfg.Groups), Warnings: append([]string{}, warnings...),
	}}
}

// publishLeaving has nobody take a backend that leaves for one that is drained: its
// sockets are not counted from the first write on.
func (d *daemon) publishLeaving(next *source) {
	if v := d.view.Load(); v != nil && len(v.orders) > 0 {
		leaving := *v
		leaving.orders = d.backends.ordersLeft(next)
		d.view.Store(&leaving)
	}
}

// settleWait bounds how long a reload's answer waits for the calls that were on
// their way when the kernel changed: some 10 ms as a rule.
const settleWait = time.Second

// drained waits until no call uses what the reload replaced, so that none
// reaches a removed backend after the answer (D34).
func (d *daemon) drained(ctx context.Context) {
	if d.dp.dataPath == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleWait)
	defer cancel()
	if err := d.rec.Settle(ctx); err != nil {
		d.log.Warn("reload: what was replaced is not freed yet", "err", err)
	}
}

// giveUp ends the reload that waits; what ran before runs on.
func (d *daemon) giveUp(err *api.Error) {
	r := d.pending
	d.pending = nil
	if r.source != nil {
		d.followUnits()
	}
	if r.source != nil && d.running != nil {
		d.watcher.SetTree(d.running.tree)
		d.backends.watch(d.running, nil)
	}
	d.failing, d.failed, d.reloadErr = "reload", time.Now(), err
	d.log.Error("reload failed; running configuration unchanged", "event", eventReloadFailed, "err", err)
	d.publish()
	d.tell("READY=1", "STATUS="+d.summary())
	r.done <- reloaded{err: err}
}

// remember seals what runs for the process after this one.
func (d *daemon) remember() error {
	text, err := d.running.said.Text(true)
	if err != nil {
		return fmt.Errorf("last good configuration: %w", err)
	}
	d.states++
	next := &lastGood{
		Generation: d.states, Path: d.path(), Files: d.running.cfg.Files, Loaded: d.running.loaded, TOML: text,
		Standing: d.running.stands.stored(),
	}
	f, err := next.seal()
	if err != nil {
		return err
	}
	if d.state != nil {
		old := d.state
		defer old.Close()
	}
	next.TOML, next.Standing = "", nil // the memfd has them
	d.state, d.good, d.kept.unsealed = f, next, false
	d.trim.Store(true)
	return nil
}

// path is where the configuration comes from, as people name it.
func (d *daemon) path() string {
	if d.configPath == "" {
		return "/etc/slicelb"
	}
	return d.configPath
}
