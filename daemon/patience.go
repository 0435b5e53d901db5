package daemon

import (
	"context"
	"slices"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
)

// Whoever restarts one backend after the other says of each that it is out, then that
// it is back, and goes on to the next. So that no VIP is left with nothing, backends
// that come back are in use when that is answered; and the last ones of a VIP are not
// taken out while others are about to come, for some time.

// change takes an operator's wish in. Another about the same backends is not waited
// for any more: what is said last holds.
func (d *daemon) change(ctx context.Context, c *backendChange) {
	all, _ := d.meant(c)
	for _, o := range d.backends.open {
		if slices.ContainsFunc(all, func(e lb.Endpoint) bool { return slices.Contains(o.all, e) }) {
			o.until = time.Time{}
		}
	}
	d.carryOut(ctx)
	c.until = time.Now().Add(startChecks)
	d.backends.open = append(d.backends.open, c)
	d.carryOut(ctx)
}

// carryOut carries out the wishes whose time has come, and answers those that are
// done.
func (d *daemon) carryOut(ctx context.Context) {
	if len(d.backends.open) == 0 {
		return
	}
	open := d.backends.open
	d.backends.open = nil
	for _, c := range open {
		if c.answer == nil {
			c.all, _ = d.meant(c) // an error is found once more
		}
		if c.answer == nil && c.ctx.Err() != nil {
			c.done <- backendChanged{err: api.Errorf(api.Timeout, "%s: not done in time, and not done any more", c)}
			continue
		}
		if c.answer == nil && !d.premature(ctx, c) {
			answer, err := d.order(ctx, c)
			d.publish() // before the answer: who asks next means this
			if err != nil {
				c.done <- backendChanged{err: err}
				continue
			}
			c.answer, c.set = answer, d.backends.set
			c.until = time.Now()
			if c.state == api.OrderReady {
				c.until = c.until.Add(d.running.firstChecks(reloadChecks))
			}
		}
		if c.answer == nil || time.Now().Before(c.until) && !d.back(c) {
			d.backends.open = append(d.backends.open, c)
			continue
		}
		if c.state == api.OrderReady {
			d.sayDown(c)
		}
		c.done <- backendChanged{answer: c.answer}
	}
}

// giveUp answers what waits when the daemon stops: what has not been carried out will
// not be.
func (b *backendStates) giveUp() {
	for _, c := range b.open {
		if c.answer == nil {
			c.done <- backendChanged{err: api.Errorf(api.Failed, "%s: the daemon stops", c)}
			continue
		}
		c.done <- backendChanged{answer: c.answer}
	}
}

// premature reports whether a wish would leave a VIP with nothing that has backends
// which are about to come. Units may have started of which nothing was heard yet.
func (d *daemon) premature(ctx context.Context, c *backendChange) bool {
	if c.state == api.OrderReady || !time.Now().Before(c.until) || d.running == nil || d.desired == nil {
		return false
	}
	last, coming := d.leaves(c.all)
	if !last || coming {
		return last
	}
	if c.asked == nil && c.unit != "" && d.watcher != nil && d.units != nil && d.units.Cause == "" {
		c.asked = d.watcher.AskUnits()
	}
	if c.asked == nil || !c.asked() {
		return c.asked != nil
	}
	select {
	case u := <-d.watcher.Units():
		d.seeUnits(ctx, u)
		last, coming = d.leaves(c.all)
	default:
	}
	return last && coming
}

// leaves reports whether all are the last of some VIP, in a family and for those who
// have the same list, and whether others of it are about to come.
func (d *daemon) leaves(all []lb.Endpoint) (last, coming bool) {
	vips := map[string]bool{}
	for _, e := range all {
		vips[e.VIP] = true
	}
	active := map[lb.Endpoint]bool{}
	for _, v := range d.desired.VIPs {
		if vips[v.Name] {
			for _, b := range v.Backends {
				active[lb.Endpoint{VIP: v.Name, Addr: b.Addr}] = b.State == bpf.BackendActive
			}
		}
	}
	var others []lb.Endpoint // of the lists that are left with nothing
	for i := range d.running.cfg.VIPs {
		v := &d.running.cfg.VIPs[i]
		if !vips[v.Name] {
			continue
		}
		for list, family := range lists(v) {
			taken, left, begin := false, false, len(others)
			for _, b := range list {
				e := lb.Endpoint{VIP: v.Name, Addr: b.Addr}
				switch {
				case !family(b.Addr.Addr()) || b.Weight == 0:
				case slices.Contains(all, e):
					taken = taken || active[e]
				case active[e]:
					left = true
				default:
					others = append(others, e)
				}
			}
			if taken && !left {
				last = true
			} else {
				others = others[:begin]
			}
		}
	}
	if len(others) == 0 {
		return last, false
	}
	states := d.backends.states()
	return last, slices.ContainsFunc(others, func(e lb.Endpoint) bool { return d.comes(e, states) })
}

// comes reports whether a backend that is not in use may be, before long: its unit
// starts or has just started, its first check has not ended, or it is not in the kernel
// yet. states are what checks have found.
func (d *daemon) comes(e lb.Endpoint, states map[lb.Endpoint]health.State) bool {
	if d.backends.operator[e].State != "" {
		return false
	}
	u := d.running.unit(e)
	switch {
	case u != nil && (u.State == discover.Activating || u.State == discover.Waiting):
		return true
	case u != nil && u.State != discover.Active && u.State != discover.Reloading:
		return false
	case d.running.checks[e.VIP] == nil:
		return true
	}
	state, ok := states[e]
	return !ok || state != health.Down || u != nil && time.Since(u.Since) < startChecks
}

// back reports whether the first checks of backends that are ready again have ended,
// and the kernel has what came of them.
func (d *daemon) back(c *backendChange) bool {
	b := d.backends
	if b.verdicts == nil || b.verdicts.Set < c.set || !d.applied || d.desiredOf != b.version {
		return false
	}
	for t, v := range b.verdicts.All() {
		if v.State == health.Unchecked && slices.Contains(c.all, lb.Endpoint{VIP: t.VIP, Addr: t.Addr}) {
			return false
		}
	}
	return true
}

// sayDown adds to an answer why backends take no connections although they are ready.
func (d *daemon) sayDown(c *backendChange) {
	results := d.backends.checker.Results()
	for i, e := range c.all {
		r, checked := results[health.Endpoint(e)]
		if checked && r.State != health.Up && i < len(c.answer.Backends) {
			c.answer.Backends[i].Down = notUp(r)
		}
	}
}

func checkedOf(all []lb.Endpoint) []health.Endpoint {
	out := make([]health.Endpoint, len(all))
	for i, e := range all {
		out[i] = health.Endpoint(e)
	}
	return out
}
