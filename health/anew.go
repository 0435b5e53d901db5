package health

import (
	"slices"
	"time"
)

// Anew has backends that are not up checked at once, as if nothing was known of them:
// the first check that begins from here on decides alone. The verdicts of the next Set
// know it.
func (c *Checker) Anew(list []Endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range list {
		if q := c.byEndpoint[e]; q != nil && q.check.Broken == nil {
			c.renewed = append(c.renewed, q)
		}
	}
	if c.wake != nil {
		c.wake()
	}
}

// renew does what Anew asked for.
func (c *Checker) renew(p prober, now time.Duration) {
	for _, q := range c.renewed {
		if q.state == Up || c.all[probeKey{q.addr, q.check.key()}] != q {
			continue
		}
		if q.flight != nil { // it began too early to say
			p.stop(q.flight)
			q.flight = nil
		}
		q.state, q.since, q.run = Unchecked, time.Now(), 0
		c.backlog = slices.DeleteFunc(c.backlog, func(other *probe) bool { return other == q })
		c.queue.put(q, now)
		c.dirty = true
	}
	c.renewed = nil
}
