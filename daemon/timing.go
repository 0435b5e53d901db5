package daemon

import (
	"slices"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
)

// wantedHooks are the optional hooks that a configuration has a use for, and that
// somebody who wants to know how long connects take has.
func (d *daemon) wantedHooks(cfg *config.Config) []string {
	want := optionalHooks(cfg)
	if d.observer.Timed() && !slices.Contains(want, bpf.SockOps) {
		want = append(want, bpf.SockOps)
	}
	return want
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
