package daemon

import (
	"maps"
	"slices"

	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/lb"
)

// tellRuns says which backends came and went with their units, from what units were
// known to be to what they are.
func (d *daemon) tellRuns(before, now *source) {
	if before.ends == nil || now.ends == nil {
		return // no backend is a unit
	}
	was, is := before.ends.Units, now.ends.Units
	all := maps.Clone(was)
	if all == nil {
		all = map[discover.Endpoint]discover.Unit{}
	}
	maps.Copy(all, is)
	said := 0
	for _, at := range slices.SortedFunc(maps.Keys(all), discover.Endpoint.Compare) {
		u := all[at]
		_, there := is[at]
		serves := is[at].State.Serves() // one that is not there does not
		if serves == was[at].State.Serves() {
			continue
		}
		if said++; said > maxLogged {
			continue
		}
		e, unit := lb.Endpoint(at), prose.Foreign(u.Name)
		switch {
		case serves:
			d.log.Info("backend is up", "event", eventBackendUp, "vip", e.VIP, "backend", e.Addr, "reason", "unit "+unit+" is "+u.State.String())
		case there:
			d.log.Warn("backend is down", "event", eventBackendDown, "vip", e.VIP, "backend", e.Addr, "reason", unitReason(&u))
		default:
			d.log.Warn("backend is down", "event", eventBackendDown, "vip", e.VIP, "backend", e.Addr, "reason", "unit "+unit+" is inactive")
		}
	}
	if said > maxLogged {
		d.log.Warn("more backends have come or gone with their units", "number", said-maxLogged)
	}
}
