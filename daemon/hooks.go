package daemon

import (
	"context"
	"errors"
	"slices"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/unitwatch"
)

// optionalHooks are those that a configuration has a use for. They cost something
// for every TCP socket of the host.
func optionalHooks(cfg *config.Config) []string {
	out := []string{}
	if slices.ContainsFunc(cfg.VIPs, func(v config.VIP) bool { return v.Health != nil && v.Health.Passive }) {
		out = append(out, bpf.SockOps)
	}
	if slices.ContainsFunc(cfg.Groups, func(g config.Group) bool { return g.Strict }) {
		out = append(out, bpf.SockCreate)
	}
	return out
}

// wantedHooks are the optional hooks that a configuration has a use for, and that
// somebody who wants to know how long connects take has.
func (d *daemon) wantedHooks(cfg *config.Config) []string {
	want := optionalHooks(cfg)
	if d.observer.Timed() && !slices.Contains(want, bpf.SockOps) {
		want = append(want, bpf.SockOps)
	}
	return want
}

// rehook attaches and detaches optional hooks, where cfg has a use for others than
// those that are attached.
func (d *daemon) rehook(cfg *config.Config) error {
	want := d.wantedHooks(cfg)
	if d.hooked != nil && slices.Equal(want, d.hooked) {
		return nil
	}
	d.dp.Want(want...)
	if err := d.dp.Attach(d.rootDir); err != nil {
		return err
	}
	d.hooked, d.kept.behind = want, true
	return nil
}

// timing attaches what sees the answers of connects while somebody wants to know
// how long they take, and detaches it after.
func (d *daemon) timing() {
	if !d.attached || d.running == nil || !d.applied {
		return
	}
	err := d.rehook(d.running.cfg)
	if err != nil && (d.timingErr == nil || d.timingErr.Error() != err.Error()) {
		d.log.Warn("connects are not timed", "err", err)
	}
	d.timingErr = err
}

// lookAtHooks attaches again what somebody cut off, and has the watcher look where
// the kernel's hints were lost.
func (d *daemon) lookAtHooks(ctx context.Context) {
	if !d.attached {
		return
	}
	if st, err := d.dp.Stats(); err == nil && st.EventsLost != d.eventsLost {
		d.eventsLost = st.EventsLost
		d.resync(unitwatch.HintLost)
	}
	err := d.dp.Check()
	if err == nil {
		d.hooksErr = nil
		return
	}
	told := d.hooksErr != nil // at every tick it would be told again
	if !told {
		d.log.Error("a hook is not ours any more; attaching again", "err", err)
	}
	if again := d.dp.Attach(d.rootDir); again != nil {
		if !told {
			d.log.Error("attach again; trying on", "err", again)
		}
		d.hooksErr = errors.Join(err, again)
		return
	}
	d.hooksErr = nil
	d.keep(ctx, false)
	d.resync(unitwatch.HintAll)
}
