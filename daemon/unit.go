package daemon

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch"
)

// Backends that are units. systemd's answer becomes a list of units, the list
// and the configuration become another configuration, in whose lists of backends
// the units' stand: whatever follows needs not tell them apart.

// with is s as the units have it.
func (s *source) with(units *discover.Units) *source {
	if len(s.patterns) == 0 {
		return s
	}
	out := *s
	out.ends = discover.Expand(s.said, units, unitwatch.MatchUnit)
	out.cfg = out.ends.Config
	return &out
}

// unit is the unit that a backend is; nil: it is none.
func (s *source) unit(e lb.Endpoint) *discover.Unit {
	if s == nil || s.ends == nil || len(s.ends.Units) == 0 {
		return nil
	}
	if u, ok := s.ends.Units[discover.Endpoint(e)]; ok {
		return &u
	}
	return nil
}

// endpointsOf are the backends that a unit is, by VIP and address.
func (s *source) endpointsOf(unit string) []lb.Endpoint {
	var out []lb.Endpoint
	for at, u := range s.ends.Units {
		if u.Name == unit {
			out = append(out, lb.Endpoint(at))
		}
	}
	slices.SortFunc(out, compareEndpoints)
	return out
}

func compareEndpoints(a, b lb.Endpoint) int {
	return discover.Endpoint(a).Compare(discover.Endpoint(b))
}

// rests reports whether a backend's unit does not run, so that there is nothing
// to check.
func (s *source) rests(e lb.Endpoint) bool {
	u := s.unit(e)
	return u != nil && (u.State == discover.Activating || !u.State.Runs())
}

// unitVerdicts adds to rt what follows from the states of units.
func (s *source) unitVerdicts(rt lb.Runtime) {
	if s.ends == nil {
		return
	}
	for at, u := range s.ends.Units {
		e := lb.Endpoint(at)
		v := rt.Verdicts[e]
		switch u.State {
		case discover.Activating, discover.Deactivating:
			v.Drain = true
		case discover.Failed, discover.Waiting:
			v = lb.Verdict{Down: true, Drain: v.Drain}
		default:
			continue
		}
		rt.Verdicts[e] = v
	}
}

// drainVerdict is what an order does; until is when that changes by itself.
func (s *source) drainVerdict(e lb.Endpoint, o order, v lb.Verdict, now time.Time) (out lb.Verdict, until time.Time) {
	if o.State == api.OrderMaint {
		return lb.Verdict{Down: true}, time.Time{}
	}
	v.Drain = true
	if wait := s.drainTimeout(e.VIP); wait > 0 {
		if until = o.Since.Add(wait); !now.Before(until) {
			return lb.Verdict{Down: true}, time.Time{}
		}
	}
	return v, until
}

func (s *source) drainTimeout(vip string) time.Duration {
	if v := s.vip(vip); v != nil {
		return v.DrainTimeout
	}
	return 0
}

// unitWait bounds how long a start, and a reload, wait for systemd to say which
// units run.
const unitWait = 5 * time.Second

// unitsAwaited reports whether src is to wait for what systemd says of its units.
func (d *daemon) unitsAwaited(src *source, since time.Time) bool {
	return src != nil && !d.unitsAsked.Covers(src.patterns) && time.Since(since) < unitWait
}

// followUnits has the watcher follow the units of what runs, and of what is to.
func (d *daemon) followUnits() {
	if d.watcher == nil {
		return
	}
	var patterns []string
	seen := map[string]bool{}
	add := func(s *source) {
		if s == nil {
			return
		}
		for _, p := range s.patterns {
			if !seen[p] {
				seen[p] = true
				patterns = append(patterns, p)
			}
		}
	}
	add(d.running)
	if d.pending != nil {
		add(d.pending.source)
	}
	d.watcher.SetUnits(patterns)
}

// seeUnits takes the states of units in.
func (d *daemon) seeUnits(ctx context.Context, u *unitwatch.Units) {
	before, next := d.units, unitsOf(u, d.units)
	d.tellUnits(next)
	d.units, d.backends.units, d.backends.unsaved = next, next, true
	if next.Cause != "" {
		return // what is known stands
	}
	d.unitsAsked = next
	d.backends.endRuns(d, next)
	d.backends.version++
	if was := d.running; was != nil {
		d.running = was.with(next)
		d.backends.begin(d.running.begun(was, before))
		if before != nil { // else nothing came or went: it was there
			d.tellRuns(was, d.running)
		}
	}
	if p := d.pending; p != nil && p.source != nil {
		now := p.source.with(next)
		d.backends.begin(now.begun(p.source, before))
		p.source = now
		d.backends.watch(p.source, d.running)
		d.tryFinish(ctx)
	} else {
		d.backends.watch(d.running, nil)
	}
	if d.pending == nil || d.ready {
		d.soon(ctx)
	}
	d.saveStates(0) // the next process may find no bus to ask
}

// unitsOf is what systemd said, in the words of package discover. What was known
// before knows since when a unit that goes on stands as it does.
func unitsOf(u *unitwatch.Units, before *discover.Units) *discover.Units {
	out := &discover.Units{Patterns: u.Patterns, Cause: u.Cause, List: make([]discover.Unit, 0, len(u.List))}
	for _, w := range u.List {
		n := discover.Unit{Name: w.Name, Since: w.Since, Run: w.Invocation, StartJob: w.StartJob}
		switch w.State {
		case unitwatch.UnitActive:
			n.State = discover.Active
		case unitwatch.UnitReloading:
			n.State = discover.Reloading
		case unitwatch.UnitActivating:
			n.State = discover.Activating
		case unitwatch.UnitDeactivating:
			n.State = discover.Deactivating
		case unitwatch.UnitFailed:
			n.State = discover.Failed
		case unitwatch.UnitWaiting:
			n.State = discover.Waiting
		default:
			continue
		}
		if old := before.Find(w.Name); old != nil && old.State == n.State && old.Run == n.Run && n.Run != "" && old.Since.Before(n.Since) {
			n.Since = old.Since
		}
		out.List = append(out.List, n)
	}
	return out
}

// tellUnits logs which units have changed, while somebody has backends by them.
func (d *daemon) tellUnits(next *discover.Units) {
	said := 0
	say := func(name, state string) {
		if said++; said <= maxLogged {
			d.log.Info("unit of a backend", "unit", prose.Foreign(name), "state", state)
		}
	}
	for _, u := range next.List {
		if old := d.units.Find(u.Name); old == nil || old.State != u.State {
			say(u.Name, u.State.String())
		}
	}
	if d.units != nil {
		for _, u := range d.units.List {
			if next.Find(u.Name) == nil {
				say(u.Name, "inactive")
			}
		}
	}
	if said > maxLogged {
		d.log.Info("more units have changed", "number", said-maxLogged)
	}
}

// endRuns drops the orders about units whose run is over, and learns the runs of
// those that were not known when the order came.
func (b *backendStates) endRuns(d *daemon, units *discover.Units) {
	var next map[lb.Endpoint]order
	change := func(e lb.Endpoint, f func(map[lb.Endpoint]order)) {
		if next == nil {
			next = maps.Clone(b.operator) // the API reads the old one
		}
		f(next)
	}
	for e, o := range b.operator {
		if !o.ByUnit {
			continue
		}
		switch u := units.Find(o.Unit); {
		case u == nil || !u.State.Runs() || o.Run != "" && u.Run != "" && u.Run != o.Run:
			change(e, func(m map[lb.Endpoint]order) { delete(m, e) })
			d.log.Info("the run of the unit that was told to "+o.State+" is over", "vip", e.VIP, "backend", e.Addr, "unit", prose.Foreign(o.Unit))
		case o.Run == "" && u.Run != "":
			o.Run = u.Run
			change(e, func(m map[lb.Endpoint]order) { m[e] = o })
		}
	}
	if next != nil {
		b.operator, b.unsaved = next, true
		b.count()
	}
}

// mayReturn reports whether an order's unit could be that backend again.
func mayReturn(vip *config.VIP, e lb.Endpoint, o order) bool {
	if o.Unit == "" {
		return false
	}
	is := func(list []config.UnitBackend) bool {
		return slices.ContainsFunc(list, func(u config.UnitBackend) bool {
			if u.Unit != discover.Closest(list, u.Family, o.Unit, unitwatch.MatchUnit) {
				return false
			}
			addr, err := u.Addr(o.Unit)
			return err == nil && addr == e.Addr
		})
	}
	return is(vip.Units) || slices.ContainsFunc(vip.For, func(v config.View) bool { return is(v.Units) })
}

// unitNotes are what a status says of units.
func (d *daemon) unitNotes(note func(string, ...any)) {
	if d.running == nil || len(d.running.patterns) == 0 {
		return
	}
	switch {
	case d.unitsAsked.Covers(d.running.patterns) && d.units.Cause != "":
		note("the states of units that are backends may be old: %s", d.units.Cause)
	case !d.unitsAsked.Covers(d.running.patterns) && d.units != nil:
		note("systemd has not said yet how the units that are backends stand: what the process before knew is served")
	case !d.unitsAsked.Covers(d.running.patterns):
		note("systemd has not said yet which of the units run that are backends: there are none")
	}
	for _, text := range d.running.ends.Wrong {
		note("%s", text)
	}
}

// unitReason is why a backend's unit keeps it out; "": it does not.
func unitReason(u *discover.Unit) string {
	switch u.State {
	case discover.Activating:
		return fmt.Sprintf("unit %s is starting", prose.Foreign(u.Name))
	case discover.Deactivating:
		return fmt.Sprintf("unit %s is stopping", prose.Foreign(u.Name))
	case discover.Failed:
		return fmt.Sprintf("unit %s has failed", prose.Foreign(u.Name))
	case discover.Waiting:
		return fmt.Sprintf("unit %s has ended and waits to be restarted", prose.Foreign(u.Name))
	}
	return ""
}
