package daemon

import (
	"iter"
	"slices"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch"
)

// Units that have begun to run. What checks found of a backend was of its run before,
// and says nothing of this one.

// begun are the checked backends of s whose units have begun to run since before, which
// is the same configuration as units were known until now. A unit of which nothing was
// known may have run for long. Where backends are up unless checks say otherwise, they
// stay as they are.
func (s *source) begun(before *source, known *discover.Units) []lb.Endpoint {
	if s.ends == nil {
		return nil
	}
	var out []lb.Endpoint
	for at, u := range s.ends.Units {
		e := lb.Endpoint(at)
		if check := s.checks[e.VIP]; check == nil || check.Broken != nil || !u.State.Serves() {
			continue
		}
		if u.Follows(before.unit(e), known, unitwatch.MatchUnit) && s.vip(e.VIP).Health.Initial != config.InitialUp {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, compareEndpoints)
	return out
}

// begin forgets what was found of backends. They are down until their first check says
// otherwise, whatever the checker has said that has not been heard yet.
func (b *backendStates) begin(list []lb.Endpoint) {
	if len(list) == 0 {
		return
	}
	for _, e := range list {
		b.begun[e] = true
		delete(b.known, e)
	}
	b.checker.Forget(checkedOf(list))
}

// found is what the checker said last, but for the backends of which that does not hold
// any more.
func (b *backendStates) found() iter.Seq2[health.Target, health.Verdict] {
	return func(yield func(health.Target, health.Verdict) bool) {
		if b.verdicts == nil {
			return
		}
		for t, v := range b.verdicts.All() {
			if b.begun[lb.Endpoint{VIP: t.VIP, Addr: t.Addr}] {
				v = health.Verdict{}
			}
			if !yield(t, v) {
				return
			}
		}
	}
}
