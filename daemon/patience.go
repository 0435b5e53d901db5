package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
)

// Whoever restarts one backend after the other says of each that it is out, then that
// it is back, and goes on to the next. So that no VIP is left with nothing, backends
// that come back have been checked when that is answered; and the last ones of a VIP are
// not taken out while others are about to come, for some time, nor while others should
// take connections and do not. A unit that stops does so whatever is answered: its
// backends are taken out when others have come, or the time is over.

// settles is for how long a backend that was started, or made ready, and fails its checks
// is about to come.
const settles = 30 * time.Second

// change takes an operator's wish in. Another about the same backends is not waited
// for any more: what is said last holds.
func (d *daemon) change(ctx context.Context, c *backendChange) {
	all, _ := d.meant(c)
	for _, o := range d.backends.open {
		if slices.ContainsFunc(all, func(e lb.Endpoint) bool { return slices.Contains(o.all, e) }) {
			o.over = true
		}
	}
	d.carryOut(ctx)
	c.all, c.until = all, time.Now().Add(cmp.Or(c.wait, startChecks))
	d.backends.open = append(d.backends.open, c)
	d.carryOut(ctx)
}

// carryOut carries out the wishes whose time has come, and answers those that are
// done.
func (d *daemon) carryOut(ctx context.Context) {
	var open []*backendChange
	for _, c := range d.backends.open {
		if c.answer == nil {
			if err := d.attempt(ctx, c); err != nil {
				c.done <- backendChanged{err: err}
				continue
			}
		}
		if c.answer == nil || !c.over && time.Now().Before(c.until) && !d.back(c) {
			open = append(open, c)
			continue
		}
		if c.state == api.OrderReady {
			d.sayDown(c)
		}
		c.done <- backendChanged{answer: c.answer}
	}
	d.backends.open = open
}

// attempt carries out a wish that was not carried out yet, unless it is to wait.
func (d *daemon) attempt(ctx context.Context, c *backendChange) error {
	c.all, _ = d.meant(c) // an error is found once more
	switch {
	case c.ctx.Err() != nil:
		return api.Errorf(api.Timeout, "%s: not done in time, and not done any more", c)
	case c.over:
		return api.Errorf(api.Conflict, "%s: not done: another order came meanwhile", c)
	}
	if waits, err := d.premature(ctx, c); waits || err != nil {
		return err
	}
	answer, err := d.order(ctx, c)
	d.publish() // before the answer: who asks next means this
	if err != nil {
		return err
	}
	c.answer, c.set = answer, d.backends.set
	c.until = time.Now()
	if c.state == api.OrderReady {
		most := d.running.firstChecks(reloadChecks)
		if c.wait > 0 {
			most = min(most, c.wait)
		}
		c.until = c.until.Add(most)
	}
	return nil
}

// patience is when the time of an order that waits is over; nil: none waits.
func (b *backendStates) patience() <-chan time.Time {
	if len(b.open) == 0 {
		return nil
	}
	first := slices.MinFunc(b.open, func(x, y *backendChange) int { return x.until.Compare(y.until) })
	return time.After(time.Until(first.until))
}

// giveUp answers what waits when the daemon stops: what has not been carried out will
// not be, but for who asks the next one.
func (b *backendStates) giveUp() {
	for _, c := range b.open {
		if c.answer == nil {
			c.done <- backendChanged{err: api.Errorf(api.Busy, "%s: the daemon stops", c)}
			continue
		}
		c.done <- backendChanged{answer: c.answer}
	}
}

// premature reports whether a wish is to wait, because too little would be left of a VIP
// that has backends which are about to come; an error is why it is refused. Units may
// have started, or stop, of which nothing was heard yet.
func (d *daemon) premature(ctx context.Context, c *backendChange) (bool, error) {
	if c.state == api.OrderReady || c.force || d.running == nil || d.desired == nil {
		return false, nil
	}
	left := d.leaves(c.all)
	inTime := time.Now().Before(c.until)
	asks := d.watcher != nil && d.units != nil && d.units.Cause == ""
	if left.units && !left.coming && asks {
		if c.asked == nil {
			c.asked, c.askedAt = d.watcher.AskUnits(), time.Now()
		}
		if !c.asked() { // in the end nobody knows whether it stops
			return inTime && time.Since(c.askedAt) < startChecks, nil
		}
		select {
		case u := <-d.watcher.Units():
			d.seeUnits(ctx, u)
			left = d.leaves(c.all)
		default:
		}
	}
	switch {
	case left.coming && inTime:
		return true, nil
	case !left.last, len(left.others) == 0, c.unit != "" && (!asks || !d.serves(c.unit)):
		return false, nil
	}
	return false, &api.Error{
		Code: api.Conflict,
		Text: fmt.Sprintf("%s: VIP %s would have no backend that works: %s should be one, and is not", c, left.others[0].VIP, left.others[0].Addr),
		Hint: "slicelb backend list --vip " + left.others[0].VIP + " says why; --force takes it out all the same",
	}
}

// serves reports whether systemd has said of a unit that it runs.
func (d *daemon) serves(unit string) bool {
	u := d.units.Find(unit)
	return u != nil && u.State.Serves()
}

// back reports whether the first checks of backends that are ready again have ended,
// and the kernel has what came of them.
func (d *daemon) back(c *backendChange) bool {
	b := d.backends
	if b.verdicts == nil || b.verdicts.Set < c.set || !d.applied || d.desiredOf != b.version {
		return false
	}
	for t, v := range b.found() {
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
