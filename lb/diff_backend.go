package lb

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/slicelb/slicelb/bpf"
)

func (p *planner) freeBackend(index uint32) {
	gen := p.have.maps.BackendCells[index].Gen
	p.later(bpf.SetBackendCell{Index: index, Cell: bpf.BackendCell{State: bpf.BackendFree, Gen: gen}})
}

func sortedAddrs(m map[netip.AddrPort]uint32) []netip.AddrPort {
	return slices.SortedFunc(maps.Keys(m), netip.AddrPort.Compare)
}

// planBackends writes new backends and wakes those that come back; those that
// go, or may take nothing new, wait until no cell leads to them.
func (v *vipPlan) planBackends() error {
	h := v.planner.have
	v.backends = make([]uint32, len(v.want.Backends))
	for i, b := range v.want.Backends {
		if index, ok := v.have.backends[b.Addr]; ok {
			v.backends[i] = index
			old := h.maps.BackendCells[index]
			w := bpf.SetBackendCell{Index: index, Cell: bpf.BackendCell{State: b.State, Gen: old.Gen}}
			switch {
			case old.State == b.State:
			case b.State == bpf.BackendActive:
				v.do(w)
			default:
				v.leave(w)
			}
			continue
		}
		if v.planner.backends == nil {
			v.planner.backends = h.freeBackends.clone()
		}
		index, ok := v.planner.backends.first()
		if !ok {
			return v.full("backends", h.limits.Backends, v.planner.want.need.backends, b.Addr.String()+" of "+v.String())
		}
		v.backends[i] = index
		gen := max(h.maps.Backends[index].Gen, h.maps.BackendCells[index].Gen) + 1
		if gen == 0 {
			gen = 1
		}
		v.do(bpf.SetBackend{Index: index, Backend: bpf.Backend{Addr: b.Addr, Gen: gen, Cell: v.cell}},
			bpf.SetBackendCell{Index: index, Cell: bpf.BackendCell{State: b.State, Gen: gen}})
	}
	if len(v.have.backends) == 0 {
		return nil
	}
	keep := make(map[netip.AddrPort]bool, len(v.want.Backends))
	for _, b := range v.want.Backends {
		keep[b.Addr] = true
	}
	for _, addr := range sortedAddrs(v.have.backends) {
		if !keep[addr] {
			old := h.maps.BackendCells[v.have.backends[addr]]
			w := bpf.SetBackendCell{Index: v.have.backends[addr], Cell: bpf.BackendCell{State: bpf.BackendFree, Gen: old.Gen}}
			if old.State == bpf.BackendActive {
				v.leave(w)
			}
			v.wait(w)
		}
	}
	return nil
}

// leave takes a backend's right to new calls away: at once where callers may keep
// it, since those must bring it none after the last write of this plan; else when
// nothing leads to it any more.
func (v *vipPlan) leave(w bpf.SetBackendCell) {
	if v.want.Affinity > 0 && len(v.unseen) == 0 && v.cell == v.have.cell {
		v.leaving = append(v.leaving, w)
	} else if w.Cell.State != bpf.BackendFree {
		v.wait(w)
	}
}

// planLeaving comes after the cells' flips. Where there are none, the plan before
// has flipped them, and had to let views go first.
func (v *vipPlan) planLeaving() {
	for _, w := range v.leaving {
		switch {
		case v.flips > 0 && w.Cell.State == bpf.BackendFree:
			w.Cell.State = bpf.BackendDraining
			v.do(w)
		case v.flips > 0:
			v.do(w)
		case w.Cell.State != bpf.BackendFree:
			v.wait(w)
		}
	}
}

// wait puts off what must not be while a view leads to it.
func (v *vipPlan) wait(w bpf.Write) {
	v.rest = true
	if len(v.unseen) == 0 {
		v.later(w)
	}
}
