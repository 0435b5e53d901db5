package lb

import (
	"net/netip"
	"slices"

	"github.com/slicelb/slicelb/bpf"
)

type unitName struct {
	vip    string
	family uint8
}

// unit is a default cell and what hangs on it.
type unit struct {
	cell      uint32
	name      unitName // zero: no cell info
	frontends map[bpf.FrontendKey]uint32
	views     map[uint32]uint32 // group -> cell
	backends  map[netip.AddrPort]uint32

	settled bool // equals a VIP with these sums
	tables  sum
	whole   sum
}

// at is the unit of a default cell, to be changed; made where it is not known.
func (h *Have) at(cell uint32) *unit {
	u := h.units[cell]
	if u != nil {
		u.settled = false
	}
	if u == nil {
		u = &unit{
			cell:      cell,
			frontends: map[bpf.FrontendKey]uint32{},
			views:     map[uint32]uint32{},
			backends:  map[netip.AddrPort]uint32{},
		}
		h.units[cell] = u
	}
	return u
}

// forget drops a unit that holds nothing any more.
func (h *Have) forget(u *unit) {
	if u.name == (unitName{}) && len(u.frontends)+len(u.views)+len(u.backends) == 0 {
		delete(h.units, u.cell)
	}
}

// unit is the one that stands for a VIP and family: of several, which an
// interrupted change can leave, the one with the most frontends.
func (h *Have) unit(name unitName) *unit {
	var best *unit
	for _, u := range h.byName[name] {
		if best == nil || len(u.frontends) > len(best.frontends) ||
			len(u.frontends) == len(best.frontends) && u.cell < best.cell {
			best = u
		}
	}
	return best
}

// unitAt is the unit of the VIP at a position of State.VIPs.
func (h *Have) unitAt(i int, v *VIP) *unit {
	name := unitName{v.Name, v.Family}
	if i < len(h.order) && h.twins == 0 {
		if u := h.order[i]; u != nil && u.name == name {
			return u
		}
	}
	return h.unit(name)
}

// called names a unit, or takes its name away.
func (h *Have) called(u *unit, name unitName) {
	if u.name != (unitName{}) {
		rest := slices.DeleteFunc(h.byName[u.name], func(o *unit) bool { return o == u })
		if len(rest) > 0 {
			h.twins--
			h.byName[u.name] = rest
		} else {
			delete(h.byName, u.name)
		}
	}
	u.name = name
	if name != (unitName{}) {
		if len(h.byName[name]) > 0 {
			h.twins++
		}
		h.byName[name] = append(h.byName[name], u)
	}
}
