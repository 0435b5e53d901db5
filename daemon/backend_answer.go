package daemon

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
)

// shareKey names a backend in what a group gets of a VIP; group is "" for the
// VIP's own backends.
type shareKey struct {
	vip, group string
	addr       netip.AddrPort
}

// shares are the parts of new connections that backends get, by what the slots
// hold. Where clients are listed, the default cell has no backends: the VIP's
// own stand in the views of groups that have no "for".
func sharesOf(d *bpf.Dump, cfg *config.Config) map[shareKey]float64 {
	special := map[[2]string]bool{}
	for i := range cfg.VIPs {
		for _, f := range cfg.VIPs[i].For {
			special[[2]string{cfg.VIPs[i].Name, f.Group}] = true
		}
	}
	out := map[shareKey]float64{}
	for index, info := range d.CellInfos {
		cell := d.Cells[index]
		if cell.Action != bpf.Balance || cell.Count == 0 {
			continue
		}
		group := info.Group
		if !special[[2]string{info.VIP, group}] {
			group = ""
		}
		slots := map[uint32]int{}
		for _, slot := range d.Slots[cell.Base] {
			slots[bpf.SlotBackend(slot)]++
		}
		for b, n := range slots {
			out[shareKey{info.VIP, group, d.Backends[b].Addr}] = float64(n) / float64(cell.Count)
		}
	}
	return out
}

// decided is what was decided about a backend, in the words of the API.
func (c *counted) decided(v *config.VIP, group string, b config.Backend, out *api.Backend) {
	e := lb.Endpoint{VIP: v.Name, Addr: b.Addr}
	out.Share = c.share[shareKey{v.Name, group, b.Addr}]
	order := c.orders[e]
	out.Order = order.State
	r, checked := c.results[health.Endpoint{VIP: v.Name, Addr: b.Addr}]
	if checked {
		out.Check = &api.Check{
			Type: string(v.Health.Type), State: r.State.String(), Since: r.Since,
			Last: r.Last, Took: r.Took, Count: r.Checks, Run: r.Run,
		}
		if r.Err != nil {
			out.Check.Error = r.Err.Error()
		}
	}
	active := out.State == bpf.BackendActive.String()
	unit := c.source.unit(e)
	if unit != nil {
		out.Unit, out.UnitState, out.UnitSince = unit.Name, unit.State.String(), unit.Since
	}
	stands := c.standsSince(e, group, unit)
	switch {
	case c.part.lacks(e) && b.Unit != "":
		out.Reason = "left out: table " + c.part.why.Table + " has no room for it"
	case order.State != "":
		out.Reason, out.Since = orderReason(order, v, c.now), order.Since
	case unit != nil && unitReason(unit) != "":
		out.Reason, out.Since = unitReason(unit), unit.Since
	case checked && r.State != health.Up:
		out.Reason, out.Since = notUp(r), r.Since
	case !checked && v.Health != nil && out.State == bpf.BackendDown.String():
		out.Reason, out.Since = "not checked yet", stands
	case b.Weight == 0:
		out.Reason, out.Since = "weight 0", stands
	case group == "" && !v.Own():
		out.Reason, out.Since = "serves nobody: each of the VIP's clients has a for", stands
	case checked:
		if out.Since = stands; !r.Since.IsZero() { // else it was taken to be up from the beginning
			out.Since = later(r.Since, c.back[e])
		}
		switch n, _ := tenths(r.Since, v.Health.SlowStart, c.now); {
		case n > 0:
			out.Reason = fmt.Sprintf("starts slowly: %d0 %% of its weight", n)
		case r.Err != nil:
			out.Reason = "up; last check: " + r.Err.Error()
		}
		return
	default:
		out.Since = stands
	}
	switch {
	case !active || out.Reason == "" || out.Share == 0:
	case order.State == "" && unit != nil && unit.State == discover.Deactivating && !c.out(e):
		out.Reason += "; in use until another takes connections"
	case b.Weight > 0 && !c.out(e):
		out.Reason += "; the kernel does not have this yet"
	case checked && r.State == health.Down && order.State == "" && v.Health.PanicThreshold < 100:
		out.Reason += "; in use all the same, by panic_threshold"
	default:
		out.Reason += "; in use all the same, by when_down"
	}
}

// standsSince is since when a backend stands as it does where neither an order nor a check
// says so: as its unit, else as the files have it. The zero time: nobody knows.
func (c *counted) standsSince(e lb.Endpoint, group string, unit *discover.Unit) time.Time {
	var since time.Time
	switch {
	case unit != nil:
		since = unit.Since
	case c.source != nil:
		since = c.source.stands[e.VIP].at(listed{group, e.Addr})
	}
	return later(since, c.back[e])
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// out reports whether the newest that the kernel took had e out, as far as its VIP
// let it be.
func (c *counted) out(e lb.Endpoint) bool {
	if c.kernel == nil {
		return false
	}
	v := c.kernel.Verdict(e)
	return v.Drain || v.Down || v.Failing
}

// backendsOf adds to an explanation what is configured and what was decided about its
// backends; where none takes connections, all of them, with the reasons.
func (a answers) backendsOf(v *view, x *api.Explanation) error {
	vip := v.source.vip(x.VIP)
	if vip == nil {
		return nil
	}
	c, err := a.counters(v)
	if err != nil {
		return err
	}
	list, group := vip.Backends, ""
	for _, f := range vip.For {
		if f.Group == x.View {
			list, group = f.Backends, f.Group
		}
	}
	if x.Down {
		x.Backends = c.backends(vip, group, list)
		return nil
	}
	at := make(map[string]*api.Backend, len(x.Backends))
	for i := range x.Backends {
		at[x.Backends[i].Address] = &x.Backends[i]
	}
	for _, b := range list {
		if out := at[b.Addr.String()]; out != nil {
			out.Weight, out.Origin = b.Weight, b.Origin.String()
			c.decided(vip, group, b, out)
		}
	}
	return nil
}

// notUp is why a backend that is checked is not up.
func notUp(r health.Result) string {
	switch {
	case r.State == health.Unchecked:
		return "not checked yet"
	case r.Err == nil:
		return "failed; not up again yet"
	}
	return "failing: " + r.Err.Error()
}

func userName(uid uint32) string {
	if uid == 0 {
		return "root"
	}
	return fmt.Sprintf("uid %d", uid)
}

// healthText is how backends are checked, in a line.
func healthText(h *config.Health) string {
	if h == nil {
		return ""
	}
	what := string(h.Type)
	if h.Type != config.HealthTCP {
		what += " " + h.Path
	}
	text := fmt.Sprintf("%s every %v, timeout %v, fall %d, rise %d, initial %s, panic_threshold %d", what, h.Interval, h.Timeout, h.Fall, h.Rise, h.Initial, h.PanicThreshold)
	if h.SlowStart > 0 {
		text += fmt.Sprintf(", slow_start %v", h.SlowStart)
	}
	if h.Passive {
		text += ", passive"
	}
	return text
}
