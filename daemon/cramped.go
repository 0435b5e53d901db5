package daemon

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/lb"
)

// A VIP's slots are written beside those that they replace. One that has more of them
// than are free cannot change at all: it stays as it is, and holds up no other.

// cramped are such VIPs, while nothing is decided anew.
type cramped struct {
	vips    map[string]*lb.LimitError
	version uint64    // of the backends' states
	again   time.Time // when they are tried again
}

// keepCramped has a VIP stay as the kernel has it, after its change found no room;
// false: it is not known to be as the kernel has it but for its backends' states, or
// has units, of which some can be left out.
func (d *daemon) keepCramped(src *source, why *lb.LimitError) bool {
	v := src.vip(why.VIP)
	if v == nil || d.kernel == nil || d.kernelSaid != src.said || d.cramped.vips[v.Name] != nil || v.HasUnits() {
		return false
	}
	if d.cramped.vips == nil {
		d.cramped.vips = map[string]*lb.LimitError{}
	}
	d.cramped.vips[v.Name] = why
	d.backends.version++
	d.cramped.version, d.cramped.again = d.backends.version, time.Now().Add(partRetry)
	return true
}

// retryCramped has them tried again: with what was decided since, and after a while.
func (d *daemon) retryCramped(now time.Time) {
	if len(d.cramped.vips) > 0 && (d.cramped.version != d.backends.version || now.After(d.cramped.again)) {
		d.cramped.vips = nil
		d.backends.version++
		d.applied = false
	}
}

// asKernelHas puts what the kernel knows of cramped VIPs' backends into rt.
func (d *daemon) asKernelHas(src *source, rt lb.Runtime) {
	for name := range d.cramped.vips {
		v := src.vip(name)
		if v == nil {
			continue
		}
		endpoints(v, func(b config.Backend) {
			e := lb.Endpoint{VIP: name, Addr: b.Addr}
			if rt.Verdicts[e] = d.kernel.Verdict(e); rt.Verdicts[e] == (lb.Verdict{}) {
				delete(rt.Verdicts, e)
			}
		})
	}
}

// among is why one of all is not as it is to be; nil: all are.
func (c *cramped) among(all []lb.Endpoint) error {
	for _, e := range all {
		if why := c.vips[e.VIP]; why != nil {
			return why
		}
	}
	return nil
}

// problems say which VIPs are not as they are to be, and why.
func (c *cramped) problems() (out []string) {
	for _, name := range slices.Sorted(maps.Keys(c.vips)) {
		out = append(out, fmt.Sprintf("vip.%s: what has become of its backends is not in the kernel: %v", name, c.vips[name]))
	}
	return out
}
