package daemon

import (
	"slices"
	"time"

	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
)

// comes reports whether a backend that is not in use may be, before long: its unit
// starts or is about to, if need be when it has stopped, its first check has not ended,
// it fails its checks and was started or made ready a moment ago, or it is not in the
// kernel yet. states are what checks have found.
func (b *backendStates) comes(src *source, e lb.Endpoint, states map[lb.Endpoint]health.State) bool {
	u := src.unit(e)
	if o := b.operator[e]; o.State != "" && !o.endsSoon(u) {
		return false
	}
	switch {
	case u != nil && (u.StartJob || u.State == discover.Activating || u.State == discover.Waiting):
		return true
	case u != nil && !u.State.Serves():
		return false
	case src.checks[e.VIP] == nil:
		return true
	}
	if state, ok := states[e]; !ok || state != health.Down {
		return true
	}
	return u != nil && time.Since(u.Since) < settles || time.Since(b.back[e]) < settles
}

// endsSoon reports whether an order ends with the run of a unit that is restarted.
func (o order) endsSoon(u *discover.Unit) bool { return o.ByUnit && u != nil && u.StartJob }

func (b *backendStates) anyComes(src *source, list []lb.Endpoint, states map[lb.Endpoint]health.State) bool {
	return slices.ContainsFunc(list, func(e lb.Endpoint) bool { return b.comes(src, e, states) })
}

// stops reports whether a backend's unit stops, which alone keeps it from being in use.
func (b *backendStates) stops(src *source, e lb.Endpoint, states map[lb.Endpoint]health.State) bool {
	u := src.unit(e)
	return u != nil && u.State == discover.Deactivating && b.operator[e].State == "" && (src.checks[e.VIP] == nil || states[e] == health.Up)
}

// spareInterval is how often it is looked whether a unit that stops is still to be used.
const spareInterval = time.Second

// spare has the backends whose units stop take connections while nothing else of their
// list works, or others that fail would be used in their place, and something is about to
// work: an ExecStop= that drains them waits for that, and the server serves meanwhile.
func (b *backendStates) spare(src *source, rt lb.Runtime, now time.Time) {
	if src.ends == nil || !anyStops(src) {
		return
	}
	states := b.states()
	var spared []lb.Endpoint
	for i := range src.cfg.VIPs {
		v := &src.cfg.VIPs[i]
		for list, family := range lists(v) {
			var stopping, others []lb.Endpoint
			var used, failing int
			for _, be := range list {
				e := lb.Endpoint{VIP: v.Name, Addr: be.Addr}
				switch verdict := rt.Verdicts[e]; {
				case !family(be.Addr.Addr()) || be.Weight == 0:
				case !verdict.Down && !verdict.Drain && !verdict.Failing:
					used++
				case b.stops(src, e, states):
					stopping = append(stopping, e)
				default:
					others = append(others, e)
					if !verdict.Down && !verdict.Drain {
						failing++
					}
				}
			}
			if len(stopping) > 0 && (used == 0 || panics(v, failing, used+failing)) && b.anyComes(src, append(others, stopping...), states) {
				spared = append(spared, stopping...)
			}
		}
	}
	for _, e := range spared {
		v := rt.Verdicts[e]
		v.Drain = false
		rt.Verdicts[e] = v
		b.dueAt(now.Add(spareInterval))
	}
}

func anyStops(src *source) bool {
	for _, u := range src.ends.Units {
		if u.State == discover.Deactivating {
			return true
		}
	}
	return false
}
