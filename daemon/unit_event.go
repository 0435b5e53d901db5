package daemon

import (
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
	var turned []discover.Endpoint // one that is not there does not serve
	for at, u := range is {
		if u.State.Serves() != was[at].State.Serves() {
			turned = append(turned, at)
		}
	}
	for at, u := range was {
		if _, there := is[at]; !there && u.State.Serves() {
			turned = append(turned, at)
		}
	}
	slices.SortFunc(turned, discover.Endpoint.Compare)
	for _, at := range turned[:min(len(turned), maxLogged)] {
		u, there := is[at]
		if !there {
			u = was[at]
		}
		e, unit := lb.Endpoint(at), prose.Foreign(u.Name)
		switch {
		case there && u.State.Serves():
			d.log.Info("backend is up", "event", eventBackendUp, "vip", e.VIP, "backend", e.Addr, "reason", "unit "+unit+" is "+u.State.String())
		case there:
			d.log.Warn("backend is down", "event", eventBackendDown, "vip", e.VIP, "backend", e.Addr, "reason", unitReason(&u))
		default:
			d.log.Warn("backend is down", "event", eventBackendDown, "vip", e.VIP, "backend", e.Addr, "reason", "unit "+unit+" is inactive")
		}
	}
	if more := len(turned) - maxLogged; more > 0 {
		d.log.Warn("more backends have come or gone with their units", "number", more)
	}
}
