package lb

import (
	"fmt"
	"slices"

	"github.com/slicelb/slicelb/bpf"
)

// vipPlan is the work on one VIP.
type vipPlan struct {
	*planner
	want *VIP
	have *unit // empty where the VIP is new

	cell     uint32
	backends []uint32 // index of each of want.Backends
	bases    []uint32 // of each of want.Pools
	rest     bool     // something waits for a barrier

	leaving []bpf.SetBackendCell // of backends that no cell leads to when this plan is done
	flips   int                  // of cells

	// unseen are views that nobody asks for any more; until they are deleted,
	// what they lead to stays.
	unseen map[uint32]bool
}

// planVIP takes one VIP to what is wanted of it.
func (p *planner) planVIP(c *change, owner map[bpf.FrontendKey]*change) error {
	v := &vipPlan{planner: p, want: c.want, have: c.have}
	fresh := c.have == nil || c.moved
	if fresh {
		v.have = &unit{}
	}
	// A port that nobody serves any more goes before its VIP changes.
	if c.have != nil {
		own := make(map[bpf.FrontendKey]bool, len(c.want.Frontends))
		for _, f := range c.want.Frontends {
			own[f] = true
		}
		p.dropFrontends(c.have, func(k bpf.FrontendKey) bool { return own[k] || owner[k] != nil })
	}
	if fresh {
		if err := v.name(); err != nil {
			return err
		}
	} else {
		v.cell = c.have.cell
	}
	v.findUnseen()
	for _, step := range []func() error{v.planBackends, v.planPools, v.planViews} {
		if err := step(); err != nil {
			return err
		}
	}
	v.planDefault()
	v.planLeaving()
	if err := v.planFrontends(); err != nil {
		return err
	}
	if !v.rest {
		p.plan.settled = append(p.plan.settled, c.want)
	}
	return nil
}

func (v *vipPlan) String() string { return fmt.Sprintf("vip %s (IPv%d)", v.want.Name, v.want.Family) }

// name gives a new VIP its cell.
func (v *vipPlan) name() error {
	cell, err := v.newCell()
	if err != nil {
		return err
	}
	v.cell = cell
	v.do(bpf.SetCellInfo{Index: cell, Info: bpf.CellInfo{VIP: v.want.Name, Family: v.want.Family}})
	return nil
}

func (v *vipPlan) newCell() (uint32, error) {
	cell, ok := v.takeCell()
	if !ok {
		return 0, v.full("cells", v.planner.have.limits.Cells, v.planner.want.need.cells, v.String())
	}
	return cell, nil
}

func (p *planner) takeCell() (uint32, bool) {
	if p.cells == nil {
		p.cells = p.have.freeCells.clone()
	}
	return p.cells.first()
}

// planPools finds the regions that hold the wanted slots already, and fills new
// ones. A region that a cell names is never written.
func (v *vipPlan) planPools() error {
	h := v.planner.have
	v.bases = make([]uint32, len(v.want.Pools))
	inUse := v.regions()
	for i, pool := range v.want.Pools {
		slots := v.want.slots(pool, v.backends)
		found := slices.IndexFunc(inUse, func(base uint32) bool { return slices.Equal(h.maps.Slots[base], slots) })
		if found >= 0 {
			v.bases[i] = inUse[found]
			continue
		}
		if v.planner.slots == nil {
			v.planner.slots = h.freeSlots.clone()
		}
		base, ok := v.planner.slots.fit(pool.Size())
		if !ok {
			full := v.full("slots", h.limits.Slots, v.planner.want.need.slots, v.String())
			full.VIP = v.want.Name
			return full
		}
		v.bases[i] = base
		v.do(bpf.SetSlots{Base: base, Slots: slots})
	}
	return nil
}

// regions are those that the VIP's cells name, lowest first.
func (v *vipPlan) regions() []uint32 {
	if v.have.cell == 0 {
		return nil
	}
	var out []uint32
	add := func(cell uint32) {
		if c := v.planner.have.maps.Cells[cell]; c.Action == bpf.Balance {
			out = append(out, c.Base)
		}
	}
	add(v.have.cell)
	for _, cell := range v.have.views {
		add(cell)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// word is an outcome as a cell's word, over what the cell holds.
func (v *vipPlan) word(cell uint32, o Outcome, selective bool) (c bpf.Cell, differs bool) {
	old := v.planner.have.maps.Cells[cell]
	c = bpf.Cell{Action: o.Action, Selective: selective, Gen: old.Gen}
	if o.Action == bpf.Balance {
		c.Base, c.Count = v.bases[o.Pool], v.want.Pools[o.Pool].Size()
		c.Algorithm, c.Affinity = v.want.Algorithm, v.want.Affinity
		// A backend's state says that it is in a pool, not in which.
		c.Strict = len(v.want.Pools) > 1
	}
	if c == old {
		return c, false
	}
	c.Gen = nextGen(old.Gen)
	return c, true
}

func (v *vipPlan) flip(cell uint32, o Outcome, selective bool) {
	if c, differs := v.word(cell, o, selective); differs {
		v.flips++
		v.do(bpf.SetCell{Index: cell, Cell: c})
	}
}

func (v *vipPlan) planDefault() { v.flip(v.cell, v.want.Default, len(v.want.Views) > 0) }

// planFrontends points the frontends to the VIP, which is as wanted now. What
// stands for the other ports of an address follows its frontends.
func (v *vipPlan) planFrontends() error {
	h := v.planner.have
	var moved []bpf.Write
	defer func() { v.do(moved...) }()
	for _, f := range v.want.Frontends {
		if index, ok := h.maps.Frontends[f]; ok {
			ref := h.maps.FrontendRefs[index]
			switch w := (bpf.SetFrontendRef{Index: index, Ref: bpf.FrontendRef{Cell: v.cell, Gen: ref.Gen, Rest: isRest(f)}}); {
			case ref.Cell == v.cell:
			case isRest(f):
				moved = append(moved, w)
			default:
				v.do(w)
			}
			continue
		}
		if v.frontends == nil {
			v.frontends = h.freeFrontends.clone()
		}
		index, ok := v.frontends.first()
		if !ok {
			return v.full("frontends", h.limits.Frontends, v.planner.want.need.frontends, f.String())
		}
		gen := (h.maps.FrontendRefs[index].Gen + 1) & bpf.FrontendGenMask
		if gen == 0 {
			gen = 1
		}
		writes := []bpf.Write{
			bpf.SetFrontendRef{Index: index, Ref: bpf.FrontendRef{Cell: v.cell, Gen: gen, Rest: isRest(f)}},
			bpf.PutFrontend{Key: f, Index: index},
		}
		if isRest(f) {
			v.rests = append(v.rests, writes...)
		} else {
			v.do(writes...)
		}
	}
	return nil
}
