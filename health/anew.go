package health

import (
	"slices"
	"time"
)

// renewal is a probe that is to begin anew.
type renewal struct {
	*probe
	up bool // also where it is up
}

// Anew has backends that are not up checked at once, as if nothing was known of them:
// the first check that begins from here on decides alone. The verdicts of the next Set
// know it.
func (c *Checker) Anew(list []Endpoint) { c.again(list, false) }

// Forget is Anew for those that are up, too: what was found was of another server.
func (c *Checker) Forget(list []Endpoint) { c.again(list, true) }

func (c *Checker) again(list []Endpoint, up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range list {
		if q := c.byEndpoint[e]; q != nil && q.check.Broken == nil {
			c.renewed = append(c.renewed, renewal{q, up})
		}
	}
	if c.wake != nil {
		c.wake()
	}
}

// renew does what Anew and Forget asked for.
func (c *Checker) renew(p prober, now time.Duration) {
	if len(c.renewed) == 0 {
		return
	}
	begins := map[*probe]bool{}
	for _, r := range c.renewed {
		q := r.probe
		if q.state == Up && !r.up || c.all[probeKey{q.addr, q.check.key()}] != q {
			continue
		}
		if q.flight != nil { // it began too early to say
			p.stop(q.flight)
			q.flight = nil
		}
		q.state, q.since, q.run = Unchecked, time.Now(), 0
		begins[q] = true
		c.queue.put(q, now)
		c.dirty = true
	}
	c.renewed = nil
	c.backlog = slices.DeleteFunc(c.backlog, func(q *probe) bool { return begins[q] })
}
