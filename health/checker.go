package health

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// maxOpen is how many checks, and so descriptors, are under way at most. Who
	// comes then waits: late, and judged like any other.
	maxOpen = 4096
	// grain is what moments are rounded to, so that many checks share a wake-up;
	// startGrain is that of starts for which nobody waits: a connect among others
	// costs a fifth less than one after a sleep.
	grain      = 5 * time.Millisecond
	startGrain = 20 * time.Millisecond
	// batch is how many checks are started before the sockets are looked at.
	batch = 128
	// stall is by how much a turn and its wait may take longer than the turn's work and
	// the wait before that counts as a pause of the process.
	stall = 100 * time.Millisecond
	// publishGap is the least time between two values of verdicts.
	publishGap = 10 * time.Millisecond
	// retryGap is the least time between two checks of one backend; localGap
	// follows a check that this host could not make.
	retryGap = 10 * time.Millisecond
	localGap = 500 * time.Millisecond
	// lateWindow is how far Stats.Late looks back, at least.
	lateWindow = 10 * time.Second
	idle       = time.Hour
)

// Checker checks targets. Its methods may be called from any goroutine.
type Checker struct {
	newProber func(*errgroup.Group, context.Context) (prober, error)
	processor func() time.Duration // how much of its time the process has had
	out       chan *Verdicts

	mu         sync.Mutex
	set        uint64
	targets    []Target // of the newest list
	fresh      bool     // Run has not taken the list yet
	wake       func()   // nil: Run has not begun, or has ended
	taken      []Target // the list that is checked, its number, its probes
	number     uint64
	probes     []*probe
	byEndpoint map[Endpoint]*probe
	suspects   []*probe  // that the loop has not seen yet
	renewed    []renewal // by Anew and Forget; the same
	stats      Stats
	late       [2]time.Duration // this window's longest delay, and the last one's

	// Of Run's goroutine.
	begun     time.Time
	stalled   time.Duration
	all       map[probeKey]*probe
	queue     queue
	backlog   []*probe // due, and no room for them
	dirty     bool
	published time.Time
	window    time.Time
}

type probeKey struct {
	addr  netip.AddrPort
	check string
}

// New makes a checker that checks nothing.
func New() *Checker {
	return &Checker{newProber: newPoller, processor: processorTime, out: make(chan *Verdicts, 1)}
}

// Verdicts delivers the newest value, and one after each call of Set. A value
// that was not received before the next one is replaced by it.
func (c *Checker) Verdicts() <-chan *Verdicts { return c.out }

// Set replaces the list of targets and returns its number. The caller does not
// change it any more. A backend that was in the list before keeps its verdict,
// whatever becomes of its check; it is known by VIP and address.
func (c *Checker) Set(targets []Target) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set++
	c.targets, c.fresh = targets, true
	if c.wake != nil {
		c.wake()
	}
	return c.set
}

// Endpoint names a target.
type Endpoint struct {
	VIP  string
	Addr netip.AddrPort
}

// Results are the newest checks of the targets that Run has taken.
func (c *Checker) Results() map[Endpoint]Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[Endpoint]Result, len(c.probes))
	for i, p := range c.probes {
		r := Result{
			Verdict: Verdict{p.state, p.since}, Checks: p.checks, Last: p.last, Took: p.took, Err: p.err, Run: max(p.run, -p.run),
		}
		out[Endpoint{c.taken[i].VIP, p.addr}] = r
	}
	return out
}

// Stats is a snapshot.
func (c *Checker) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Late = max(c.late[0], c.late[1])
	return s
}

// Run checks until ctx ends. It is called once.
func (c *Checker) Run(ctx context.Context) error {
	tasks, ctx := errgroup.WithContext(ctx)
	p, err := c.newProber(tasks, ctx)
	if err != nil {
		return fmt.Errorf("health checks: %w", err)
	}
	c.begin(p)
	stop := context.AfterFunc(ctx, p.wake)
	tasks.Go(func() error {
		defer stop()
		c.loop(ctx, p)
		return nil
	})
	err = tasks.Wait()
	c.mu.Lock()
	c.wake = nil // nobody calls it after the prober is closed
	c.mu.Unlock()
	return errors.Join(err, p.close())
}

func (c *Checker) begin(p prober) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun, c.all, c.wake = time.Now(), map[probeKey]*probe{}, p.wake
	c.window = c.begun
}

// loop is one turn after the other: what is due is done, then the sockets are
// waited for.
func (c *Checker) loop(ctx context.Context, p prober) {
	var ended []*flight
	for ctx.Err() == nil {
		before, used := time.Now(), c.processor()
		wait, out := c.turn(p, ended)
		if out != nil {
			c.publish(out)
		}
		// To take a list of many targets is work, in which the process runs.
		worked := min(time.Since(before), c.processor()-used)
		ended = p.wait(wait)
		if over := time.Since(before) - worked - wait; over > stall {
			c.pause(over)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, q := range c.all {
		if q.flight != nil {
			p.stop(q.flight)
		}
	}
}

// now is the run clock: monotonic, without the time in which the process did
// not run.
func (c *Checker) now() time.Duration { return time.Since(c.begun) - c.stalled }

// pause takes note that the process stood still.
func (c *Checker) pause(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalled += d
	c.stats.Stalled = c.stalled
}

// turn does all that is due. It returns how long there is nothing to do, and
// the verdicts, if they are to be published.
func (c *Checker) turn(p prober, ended []*flight) (time.Duration, *Verdicts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for _, f := range ended {
		c.end(p, f, now)
	}
	c.renew(p, now)
	if c.fresh {
		c.take(p, now)
	}
	c.accuse(now)
	started := c.relieve(p, now)
	for len(c.queue) > 0 && c.queue[0].when <= now && started < batch {
		q := c.queue[0]
		switch {
		case q.flight != nil:
			c.expire(p, q, now)
		case p.room() == 0:
			c.queue.take(q)
			c.backlog = append(c.backlog, q)
		default:
			c.launch(p, q, now)
			started++
		}
	}
	c.stats.Open = maxOpen - p.room()
	if wall := time.Now(); wall.Sub(c.window) > lateWindow {
		c.window, c.late = wall, [2]time.Duration{0, c.late[0]}
	}
	return c.rest(now)
}

// rest is how long there is nothing to do.
func (c *Checker) rest(now time.Duration) (time.Duration, *Verdicts) {
	wait := idle
	if len(c.queue) > 0 {
		if wait = c.queue[0].when - now; wait > 0 {
			wait += (grain - c.queue[0].when%grain) % grain
		}
	}
	var out *Verdicts
	if c.dirty {
		if gap := publishGap - time.Since(c.published); gap > 0 {
			wait = min(wait, gap)
		} else {
			out = c.verdicts()
			c.dirty, c.published = false, time.Now()
		}
	}
	return min(max(wait, 0), idle), out
}

// relieve starts what had no room.
func (c *Checker) relieve(p prober, now time.Duration) (started int) {
	for len(c.backlog) > 0 && p.room() > 0 && started < batch {
		q := c.backlog[0]
		c.backlog = c.backlog[1:]
		c.launch(p, q, now)
		started++
	}
	return started
}

func (c *Checker) launch(p prober, q *probe, now time.Duration) {
	if late := now - q.when; q.checks > 0 {
		c.late[0] = max(c.late[0], late)
	}
	if q.hurried = q.suspect; q.suspect {
		q.suspect, q.accused = false, now
		c.stats.Suspected++
	}
	f := &flight{probe: q, started: now, stalled: c.stalled, slot: -1}
	q.flight = f
	if p.start(f) {
		c.end(p, f, now)
		return
	}
	if p.own(f) {
		c.queue.take(q)
		return
	}
	c.queue.put(q, now+q.check.Timeout)
}

// expire ends a check that took too long. One during which the process stood still has its
// time once more: where in the wait for it the pause was, nobody knows.
func (c *Checker) expire(p prober, q *probe, now time.Duration) {
	f := q.flight
	if f.stalled < c.stalled && !f.again {
		f.again = true
		c.queue.put(q, now+q.check.Timeout)
		return
	}
	p.stop(f)
	if f.err == nil {
		f.err = errConnectTimeout
	}
	c.end(p, f, now)
}

// end judges a check and says when the next one is due.
func (c *Checker) end(p prober, f *flight, now time.Duration) {
	q := f.probe
	if q.flight != f {
		return // it was of no interest any more
	}
	q.flight = nil
	if f.void(c.stalled, p.own(f)) {
		c.stats.Void++
		gap := rand.N(min(q.check.Interval, stall))
		var local *localError
		if errors.As(f.err, &local) {
			q.err = f.err
			gap = min(q.check.Interval, localGap)
		}
		c.queue.put(q, now+gap)
		return
	}
	c.stats.Checks++
	if f.err != nil {
		c.stats.Failed++
	}
	if q.judge(f.err, time.Now(), now-f.started) {
		c.dirty = true
	}
	next := q.rounded(f.started + q.check.Interval - rand.N(q.check.Interval/10))
	if f.err != nil && q.state == Up {
		// Not a whole interval for each of Fall: a backend that is gone is down
		// within the first interval and one timeout.
		next = min(next, now+max(q.check.Timeout/time.Duration(q.check.Fall), retryGap))
	}
	next = max(next, now+retryGap)
	if soon, ok := c.follow(q, f.err != nil, now); ok {
		next = min(next, soon)
	}
	c.queue.put(q, next)
}

// take makes the newest list the one that is checked.
func (c *Checker) take(p prober, now time.Duration) {
	known := make(map[Endpoint]*probe, len(c.probes))
	for i, q := range c.probes {
		known[Endpoint{c.taken[i].VIP, q.addr}] = q
	}
	all := make(map[probeKey]*probe, len(c.targets))
	probes := make([]*probe, len(c.targets))
	keys := map[*Check]string{}
	wall := time.Now()
	for i, t := range c.targets {
		if keys[t.Check] == "" {
			keys[t.Check] = t.Check.key()
		}
		key := probeKey{t.Addr, keys[t.Check]}
		q := all[key]
		if q == nil {
			if q = c.all[key]; q == nil {
				q = newProbe(t, wall)
				q.when = now
			}
			all[key] = q
		}
		if q.state == Unchecked {
			q.inherit(known[Endpoint{t.VIP, t.Addr}], t)
		}
		probes[i] = q
	}
	for key, q := range c.all {
		if all[key] == q {
			continue
		}
		c.queue.take(q)
		if q.flight != nil {
			p.stop(q.flight)
			q.flight = nil
		}
	}
	c.backlog = nil
	for _, q := range probes {
		if q.place >= 0 || q.flight != nil || q.check.Broken != nil {
			continue
		}
		if q.checks == 0 && q.state != Unchecked {
			// Nobody waits for it: not all at once.
			q.when = max(now, q.rounded(now+rand.N(q.check.Interval)))
		}
		c.queue.put(q, q.when)
	}
	c.all, c.probes, c.taken, c.number = all, probes, c.targets, c.set
	c.byEndpoint = make(map[Endpoint]*probe, len(probes))
	for i, t := range c.targets {
		c.byEndpoint[Endpoint{t.VIP, t.Addr}] = probes[i]
	}
	c.fresh, c.dirty = false, true
	c.published = time.Time{} // no gap: somebody waits for it
	c.stats.Targets, c.stats.Probes = len(probes), len(all)
}

// publish replaces the value that nobody has received yet.
func (c *Checker) publish(v *Verdicts) {
	for {
		select {
		case c.out <- v:
			return
		default:
		}
		select {
		case <-c.out:
		default:
		}
	}
}

// verdicts is the value for now.
func (c *Checker) verdicts() *Verdicts {
	v := &Verdicts{Set: c.number, targets: c.taken, list: make([]Verdict, len(c.probes))}
	for i, q := range c.probes {
		v.list[i] = Verdict{q.state, q.since}
		if q.state == Unchecked && q.check.Broken == nil {
			v.Unchecked++
		}
	}
	return v
}
