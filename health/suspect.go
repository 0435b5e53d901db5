package health

import "time"

const (
	// suspectGap is the least time between two checks of one backend that were
	// started by a suspicion and not by the one before: whoever can cause
	// suspicions causes no more work than this.
	suspectGap = 100 * time.Millisecond
	// hurry is how much longer than the checks themselves it takes until a
	// suspect that fails them all is down.
	hurry = 15 * time.Millisecond
	// hurryGap is the least time between two of them.
	hurryGap = time.Millisecond
)

// Suspect has a backend checked at once, because of something that was seen of
// it elsewhere. That is no verdict: if the check fails, those that are left until
// Fall follow without delay, and only they decide. What is not up, or is being
// checked for this reason already, costs nothing.
func (c *Checker) Suspect(e Endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.byEndpoint[e]
	if q == nil || q.suspect || q.state != Up || q.check.Broken != nil {
		return
	}
	q.suspect = true
	c.suspects = append(c.suspects, q)
	if c.wake != nil {
		c.wake()
	}
}

// accuse puts the checks of suspects before all others. One that is under way
// began too early to say: another follows it.
func (c *Checker) accuse(now time.Duration) {
	for _, q := range c.suspects {
		if q.place >= 0 && q.flight == nil && q.suspect {
			c.queue.put(q, min(q.when, max(now, q.accused+suspectGap)))
		}
	}
	clear(c.suspects)
	c.suspects = c.suspects[:0]
}

// follow is when the next check of q is due at the latest, because of a
// suspicion; false: there is none.
func (c *Checker) follow(q *probe, failed bool, now time.Duration) (time.Duration, bool) {
	switch {
	case q.state != Up:
		q.suspect = false
		return 0, false
	case q.hurried && failed:
		q.suspect, q.accused = true, now-suspectGap // the one suspicion goes on
		return now + max(hurry/time.Duration(q.check.Fall), hurryGap), true
	case q.suspect:
		return max(now, q.accused+suspectGap), true
	}
	return 0, false
}
