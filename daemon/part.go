package daemon

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/lb"
)

// Units come while the daemon runs, and nobody asks before whether there is room
// for them. Where there is none, the VIPs that have most of them do without some;
// everything else goes on.

// part is what of a source there is room for.
type part struct {
	of *source
	*source
	left  []lb.Endpoint  // backends that are units, which are left out; by VIP and address
	texts []string       // its problems
	why   *lb.LimitError // what all of it met
	most  int            // units a VIP
	again time.Time      // when more may be tried
}

// room is how many units a VIP of a source may have, as far as empty tables go: see
// daemon.largest. Where there is a part, it is of the same source.
type room struct {
	of    *source
	units int
}

// partRetry is how often more is tried where there was no room for a change: what was
// replaced makes some.
const partRetry = 10 * time.Second

// fitting is what of src the kernel is given.
func (d *daemon) fitting(src *source) *source {
	if d.part != nil && d.part.of == src {
		return d.part.source
	}
	return src
}

// leaveOut makes less of src what the kernel is given, after what was tried last found
// no room; false: there is nothing more to leave out.
//
// What fits empty tables comes first. Where there is no room for it beside what it
// replaces, half as much, and so on: but before any that serves goes, those alone are
// tried that serve already, so that what is gone makes room.
func (d *daemon) leaveOut(src *source, why *lb.LimitError) bool {
	if src.ends == nil || len(src.ends.Units) == 0 {
		return false
	}
	if tried := d.part; tried != nil && tried.of == src {
		return d.take(src, tried.why, d.fewer(src, tried.most))
	}
	if d.room.of != src {
		d.room = room{src, d.largest(src)}
	}
	most := d.room.units
	if most == src.ends.Most(nil) {
		most = d.fewer(src, most) // all of it was tried
	}
	return d.take(src, why, most)
}

// take has the kernel given at most so many units a VIP of src; false: there are none
// to leave out.
func (d *daemon) take(src *source, why *lb.LimitError, most int) bool {
	if most < 0 {
		d.part = nil
		return false
	}
	p := &part{of: src, why: why, most: most, again: time.Now().Add(partRetry)}
	p.source, p.left = src.cut(most, d.kernelHas)
	p.texts = p.shortages()
	d.part = p
	return true
}

// fewer is how many units a VIP may have after so many were too many; -1: there are
// no fewer.
func (d *daemon) fewer(src *source, most int) int {
	if most <= 0 {
		return -1
	}
	serving := src.ends.Most(func(e discover.Endpoint, u discover.Unit) bool {
		return u.State.Runs() && d.kernelHas(lb.Endpoint(e))
	})
	if half := most / 2; serving < half || serving >= most {
		return half
	}
	return serving
}

// largest is how many units a VIP may have; -1: there is no room where none has any,
// either. What fits is asked as if all backends took connections: which of them do
// changes all the time.
func (d *daemon) largest(src *source) int {
	limits, err := d.limits(src)
	if err != nil {
		d.log.Warn("leave units out", "err", err)
		return -1
	}
	none, _ := src.cut(0, d.kernelHas)
	base, err := lb.Compile(none.cfg, none.tree, lb.Membership{}, lb.Runtime{})
	if err != nil {
		return -1
	}
	vips := map[string]bool{} // that have some
	for e := range src.ends.Units {
		vips[e.VIP] = true
	}
	return sort.Search(src.ends.Most(nil)+1, func(most int) bool {
		d.ping()
		part, _ := src.cut(most, d.kernelHas)
		s, err := base.WithBackends(part.cfg, vips)
		return err != nil || s.Fits(limits) != nil
	}) - 1
}

// cut is s with at most so many units a VIP, and the backends that are left out.
func (s *source) cut(most int, had func(lb.Endpoint) bool) (*source, []lb.Endpoint) {
	ends, left := s.ends.Cut(most, func(e discover.Endpoint) bool { return had(lb.Endpoint(e)) })
	out := *s
	out.ends, out.cfg = ends, ends.Config
	list := make([]lb.Endpoint, len(left))
	for i, e := range left {
		list[i] = lb.Endpoint(e)
	}
	return &out, list
}

// kernelHas reports whether e was a backend when the kernel was last brought to
// something, by this process or the one before.
func (d *daemon) kernelHas(e lb.Endpoint) bool {
	switch {
	case d.kernel != nil:
		return d.kernel.Has(e)
	case d.found == nil:
		d.found = d.findBackends()
	}
	return d.found[e]
}

// findBackends are those that the maps hold.
func (d *daemon) findBackends() map[lb.Endpoint]bool {
	found := map[lb.Endpoint]bool{}
	if d.dp.dataPath == nil {
		return found
	}
	dump, err := d.dp.Dump()
	if err != nil {
		d.log.Warn("look for backends that are units", "err", err)
		return found
	}
	for index, b := range dump.Backends {
		if dump.BackendCells[index].State != bpf.BackendFree {
			found[lb.Endpoint{VIP: dump.CellInfos[b.Cell].VIP, Addr: b.Addr}] = true
		}
	}
	return found
}

// limits are those of the tables that there are, or that would be made for src.
func (d *daemon) limits(src *source) (bpf.Limits, error) {
	if d.dp.dataPath != nil {
		return d.dp.Limits(), nil
	}
	return bpf.LimitsFor(bpf.Options{Slots: src.cfg.Daemon.Slots, UDPFlows: src.cfg.Daemon.UDPFlows})
}

// retryPart has more tried after a while, where there was no room for a change.
func (d *daemon) retryPart(now time.Time) {
	if p := d.ranPart(); p != nil && len(p.left) > 0 && p.most < d.room.units && now.After(p.again) {
		d.take(p.of, p.why, d.room.units)
		d.applied = false
	}
}

// lacks reports whether e is left out; p may be nil.
func (p *part) lacks(e lb.Endpoint) bool {
	if p == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(p.left, e, compareEndpoints)
	return found
}

// ranPart is what of the running configuration there is room for; nil: all.
func (d *daemon) ranPart() *part {
	if d.part == nil || d.part.of != d.running {
		return nil
	}
	return d.part
}

// problems say which VIPs do without some of their units, and why; p may be nil.
func (p *part) problems() []string {
	if p == nil {
		return nil
	}
	return p.texts
}

// shortages counts the units that there are, and those that are left out.
func (p *part) shortages() []string {
	units := map[string]int{} // by VIP
	for e := range p.of.ends.Units {
		units[e.VIP]++
	}
	var out []string
	for left := p.left; len(left) > 0; {
		vip, n := left[0].VIP, 1
		for n < len(left) && left[n].VIP == vip {
			n++
		}
		left = left[n:]
		out = append(out, fmt.Sprintf("vip.%s: %d of its %d backends that are units are left out: %v", vip, n, units[vip], p.why))
	}
	return out
}
