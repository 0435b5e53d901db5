package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
)

// judge takes new verdicts in.
func (d *daemon) judge(ctx context.Context, v *health.Verdicts) {
	b := d.backends
	if b.compare(d, v) {
		b.unsaved = true
	}
	b.verdicts = v
	b.version++
	if v.Set == b.set { // it has been told
		clear(b.known)
		clear(b.begun)
	}
	b.count()
	if d.pending != nil {
		d.tryFinish(ctx)
	}
	if d.pending == nil || d.ready {
		d.soon(ctx)
	}
}

// compare says which backends have changed, and returns whether any has.
func (b *backendStates) compare(d *daemon, v *health.Verdicts) (changed bool) {
	before := b.states()
	results := sync.OnceValue(b.checker.Results)
	said := 0
	for t, v := range v.All() {
		e := lb.Endpoint{VIP: t.VIP, Addr: t.Addr}
		was, ok := before[e]
		delete(before, e)
		changed = changed || !ok || was != v.State
		if !ok || was == v.State || v.State == health.Unchecked || was == health.Unchecked && v.State == health.Up {
			continue
		}
		if u := d.running.unit(e); u != nil && !u.State.Serves() {
			continue // that was said of its unit
		}
		if said++; said > maxLogged {
			continue
		}
		if v.State == health.Up {
			d.log.Info("backend is up", "event", eventBackendUp, "vip", t.VIP, "backend", t.Addr)
		} else {
			d.log.Warn("backend is down", "event", eventBackendDown, "vip", t.VIP, "backend", t.Addr, "reason", notUp(results()[health.Endpoint{VIP: t.VIP, Addr: t.Addr}]))
		}
	}
	if said > maxLogged {
		d.log.Warn("more backends have changed", "number", said-maxLogged)
	}
	return changed || len(before) > 0
}

// states are the newest verdicts, in a map of the caller's.
func (b *backendStates) states() map[lb.Endpoint]health.State {
	out := map[lb.Endpoint]health.State{}
	for t, v := range b.found() {
		out[lb.Endpoint{VIP: t.VIP, Addr: t.Addr}] = v.State
	}
	return out
}

// soon brings the kernel up to date: at once, or, where that was done a moment
// ago, when at most a fifth of the time will have gone into it.
func (d *daemon) soon(ctx context.Context) {
	if wait := time.Until(d.backends.earliest); wait > 0 {
		d.backends.next.Reset(wait)
		return
	}
	begun, first := time.Now(), !d.attached
	d.settle(ctx)
	now := time.Now()
	if first {
		begun = now // loading and attaching is done once
	}
	d.backends.earliest = now.Add(max(4*now.Sub(begun), minApplyGap))
	if step := d.backends.step; !step.IsZero() {
		d.backends.next.Reset(max(time.Until(step), minApplyGap))
	}
}
