package daemon

import (
	"slices"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/lb"
)

// leaving is what becomes of VIPs when some backends are taken out of them.
type leaving struct {
	last   bool          // they are the last of some VIP that work, in a family and for those who have the same list
	others []lb.Endpoint // of such lists, that should work, and do not
	coming bool          // what is left would do, once others have come that are about to
	units  bool          // what is left depends on what units do
}

// leaves is what becomes of their VIPs without all. One that is used although it fails
// its checks, by panic_threshold, does not work; and where as many would be out as have
// such ones used, those that are about to come are worth waiting for too.
func (d *daemon) leaves(all []lb.Endpoint) leaving {
	vips := map[string]bool{}
	for _, e := range all {
		vips[e.VIP] = true
	}
	works := map[lb.Endpoint]bool{}
	for _, v := range d.desired.VIPs {
		if vips[v.Name] {
			for _, b := range v.Backends {
				e := lb.Endpoint{VIP: v.Name, Addr: b.Addr}
				works[e] = b.State == bpf.BackendActive && !d.desired.Verdict(e).Failing
			}
		}
	}
	states := d.backends.states()
	var out leaving
	for i := range d.running.cfg.VIPs {
		v := &d.running.cfg.VIPs[i]
		if !vips[v.Name] {
			continue
		}
		for list, family := range lists(v) {
			var meant, left int
			var others, stopping []lb.Endpoint
			again := true // those that are meant are restarted
			for _, b := range list {
				e := lb.Endpoint{VIP: v.Name, Addr: b.Addr}
				switch {
				case !family(b.Addr.Addr()) || b.Weight == 0:
				case slices.Contains(all, e):
					if works[e] || d.backends.stops(d.running, e, states) {
						meant++
						u := d.running.unit(e)
						again = again && u != nil && u.StartJob
					}
				case (works[e] || d.asksToo(e)) && d.backends.stops(d.running, e, states):
					stopping = append(stopping, e)
				case works[e]:
					left++
				case d.shouldWork(e):
					others = append(others, e)
				}
			}
			if meant == 0 {
				continue
			}
			if again { // these serve, or can, until those are back
				left += len(stopping)
			} else {
				others = append(others, slices.DeleteFunc(stopping, func(e lb.Endpoint) bool { return !d.shouldWork(e) })...)
			}
			if left == 0 {
				out.last, out.others = true, append(out.others, others...)
			}
			out.units = out.units || v.HasUnits() && (left == 0 || threshold(v) < 100)
			if left == 0 || panics(v, meant+len(others), meant+left+len(others)) {
				out.coming = out.coming || d.backends.anyComes(d.running, others, states)
			}
		}
	}
	return out
}

// shouldWork reports whether a backend that does not work should: nobody has taken it
// out, and its unit does not stop, but to start again.
func (d *daemon) shouldWork(e lb.Endpoint) bool {
	u, o := d.running.unit(e), d.backends.operator[e]
	return (o.State == "" || o.endsSoon(u)) && (u == nil || u.State != discover.Deactivating || u.StartJob)
}

// asksToo reports whether another order is about a backend, which has not been carried out.
func (d *daemon) asksToo(e lb.Endpoint) bool {
	return slices.ContainsFunc(d.backends.open, func(c *backendChange) bool {
		return c.answer == nil && !c.over && c.ctx.Err() == nil && slices.Contains(c.all, e)
	})
}

// panics reports whether a VIP uses backends that fail, where so many of total are out.
func panics(v *config.VIP, out, total int) bool { return out > total*threshold(v)/100 }

// threshold is how many backends of a VIP may be out by their checks, in percent.
func threshold(v *config.VIP) int {
	if v.Health == nil {
		return 100
	}
	return int(v.Health.PanicThreshold)
}
