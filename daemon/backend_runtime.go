package daemon

import (
	"time"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
)

// runtime is what the kernel should know of backends, for src, now. It notes
// when that changes by itself: a backend that starts slowly is due for more, a drain
// has lasted for long enough.
func (b *backendStates) runtime(src *source, now time.Time) lb.Runtime {
	rt := lb.Runtime{Verdicts: map[lb.Endpoint]lb.Verdict{}}
	b.step = time.Time{}
	b.unheard(src, rt, b.heard(src, rt, now))
	for e, o := range b.operator {
		v, until := src.drainVerdict(e, o, rt.Verdicts[e], now)
		b.dueAt(until)
		rt.Verdicts[e] = v
	}
	src.unitVerdicts(rt)
	b.spare(src, rt, now)
	return rt
}

// dueAt takes note of a moment at which a backend's state changes by itself; the
// zero time is none.
func (b *backendStates) dueAt(at time.Time) {
	if !at.IsZero() && (b.step.IsZero() || at.Before(b.step)) {
		b.step = at
	}
}

// heard adds what the checker says, and returns of whom it says something.
func (b *backendStates) heard(src *source, rt lb.Runtime, now time.Time) map[lb.Endpoint]bool {
	slow := map[string]time.Duration{}
	for i := range src.cfg.VIPs {
		if h := src.cfg.VIPs[i].Health; h != nil && h.SlowStart > 0 {
			slow[src.cfg.VIPs[i].Name] = h.SlowStart
		}
	}
	checked := map[lb.Endpoint]bool{}
	for t, v := range b.found() {
		if src.checks[t.VIP] == nil {
			continue
		}
		e := lb.Endpoint{VIP: t.VIP, Addr: t.Addr}
		checked[e] = true
		var out lb.Verdict
		switch v.State {
		case health.Unchecked:
			out.Down = true
		case health.Down:
			out.Failing, out.Since = true, v.Since
		case health.Up:
			var more time.Time
			out.Tenths, more = tenths(v.Since, slow[t.VIP], now)
			b.dueAt(more)
		}
		if out != (lb.Verdict{}) {
			rt.Verdicts[e] = out
		}
	}
	return checked
}

// unheard adds what is known of backends that the checker has not said anything of
// yet.
func (b *backendStates) unheard(src *source, rt lb.Runtime, checked map[lb.Endpoint]bool) {
	for i := range src.cfg.VIPs {
		v := &src.cfg.VIPs[i]
		if src.checks[v.Name] == nil {
			continue
		}
		endpoints(v, func(be config.Backend) {
			e := lb.Endpoint{VIP: v.Name, Addr: be.Addr}
			if checked[e] || v.Health.Initial == config.InitialUp {
				return
			}
			switch known, ok := b.known[e]; {
			case !ok:
				rt.Verdicts[e] = lb.Verdict{Down: true}
			case known.State == health.Down:
				rt.Verdicts[e] = lb.Verdict{Failing: true, Since: known.Since}
			}
		})
	}
}

// tenths of its weight has a backend that is up since then and starts slowly
// over d; 0 is all of it. next is when it gets more.
func tenths(since time.Time, d time.Duration, now time.Time) (n uint8, next time.Time) {
	up := now.Sub(since)
	if d <= 0 || up >= d || up < 0 || since.IsZero() {
		return 0, time.Time{}
	}
	done := up * 10 / d // 0 to 9
	return uint8(done) + 1, now.Add(d*(done+1)/10 - up)
}

// due reports whether what runtime said has changed by itself.
func (b *backendStates) due(now time.Time) bool { return !b.step.IsZero() && !now.Before(b.step) }
