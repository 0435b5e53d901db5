package lb

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/slicelb/slicelb/bpf"
)

// change is one VIP that differs.
type change struct {
	want *VIP  // nil: the unit goes
	have *unit // nil: the VIP is new

	// moved: it is rebuilt under a new cell, and have is left behind.
	moved bool
	state uint8
}

const (
	changeOpen = iota
	changeOnTheWay
	changeDone
)

// differing are the VIPs that change, and which of them gets each frontend.
// Where a frontend goes from one VIP to another, the one that gets it is planned
// first: the frontend's word flips when its new VIP is as wanted and its old one
// still as it was.
func (p *planner) differing() ([]*change, map[bpf.FrontendKey]*change) {
	h := p.have
	var changes []*change
	owner := map[bpf.FrontendKey]*change{}
	matched := 0
	for i, v := range p.want.VIPs {
		u := h.unitAt(i, v)
		if u != nil {
			matched++
			if u.settled && u.whole == v.whole {
				continue
			}
		}
		c := &change{want: v, have: u}
		changes = append(changes, c)
		for _, f := range v.Frontends {
			owner[f] = c
		}
	}
	if matched < len(h.units) {
		changes = append(changes, p.unwanted()...)
	}
	return changes, owner
}

// unwanted are the units that stand for no VIP of the wanted state.
func (p *planner) unwanted() []*change {
	wanted := make(map[uint32]bool, len(p.want.VIPs))
	for i, v := range p.want.VIPs {
		if u := p.have.unitAt(i, v); u != nil {
			wanted[u.cell] = true
		}
	}
	var out []*change
	for cell, u := range p.have.units {
		if !wanted[cell] {
			out = append(out, &change{have: u})
		}
	}
	slices.SortFunc(out, func(a, b *change) int { return cmp.Compare(a.have.cell, b.have.cell) })
	return out
}

// visit plans a change after those that take frontends away from it. Where they
// wait for it in turn, it is rebuilt under a new cell, and its frontends flip to
// that one by one.
func (p *planner) visit(c *change, owner map[bpf.FrontendKey]*change) error {
	if c.state != changeOpen {
		return nil
	}
	c.state = changeOnTheWay
	// A VIP that goes, or only exchanges frontends, flips nothing that those
	// still on it would see.
	if c.have != nil && c.want != nil && !(c.have.settled && c.have.tables == c.want.tables) {
		for _, f := range sortedFrontends(c.have.frontends) {
			to := owner[f]
			if to == nil || to == c {
				continue
			}
			if to.state == changeOnTheWay {
				c.moved = true
				continue
			}
			if err := p.visit(to, owner); err != nil {
				return err
			}
		}
	}
	c.state = changeDone
	if c.want == nil {
		p.dropUnit(c.have, owner)
		return nil
	}
	return p.planVIP(c, owner)
}

func sortedFrontends(m map[bpf.FrontendKey]uint32) []bpf.FrontendKey {
	return slices.SortedFunc(maps.Keys(m), compareFrontends)
}

// dropUnit takes a VIP away: its frontends first, then what they led to, and last
// the name that all of it is found by.
func (p *planner) dropUnit(u *unit, owner map[bpf.FrontendKey]*change) {
	p.dropFrontends(u, func(k bpf.FrontendKey) bool { return owner[k] != nil })
	for _, group := range slices.Sorted(maps.Keys(u.views)) {
		p.later(bpf.DelView{Key: bpf.ViewKey{Cell: u.cell, Group: group}})
	}
	if c := p.have.maps.Cells[u.cell]; c.Action != bpf.None {
		p.later(bpf.SetCell{Index: u.cell, Cell: bpf.Cell{Gen: nextGen(c.Gen)}})
	}
	for _, addr := range sortedAddrs(u.backends) {
		p.freeBackend(u.backends[addr])
	}
	if u.name != (unitName{}) && len(u.frontends)+len(u.views)+len(u.backends) == 0 {
		p.freeCell(u.cell)
	}
}

func (p *planner) dropFrontends(u *unit, keep func(bpf.FrontendKey) bool) {
	for _, k := range sortedFrontends(u.frontends) {
		if !keep(k) && !isRest(k) {
			p.dropFrontend(k, u.frontends[k])
		}
	}
}

func (p *planner) dropFrontend(k bpf.FrontendKey, index uint32) {
	p.do(bpf.DelFrontend{Key: k})
	if ref := p.have.maps.FrontendRefs[index]; ref.Cell != 0 {
		p.do(bpf.SetFrontendRef{Index: index, Ref: bpf.FrontendRef{Gen: ref.Gen}})
	}
}

// isRest: the key stands for all ports of an address that no other key names. Such
// keys come last and go first, so that no port is refused that is a frontend before
// and after, or neither.
func isRest(k bpf.FrontendKey) bool { return k.Addr.Port() == 0 }

// dropRests comes before all VIPs change.
func (p *planner) dropRests(changes []*change, owner map[bpf.FrontendKey]*change) {
	for _, c := range changes {
		if c.have == nil {
			continue
		}
		for _, k := range sortedFrontends(c.have.frontends) {
			if isRest(k) && owner[k] == nil {
				p.dropFrontend(k, c.have.frontends[k])
			}
		}
	}
}

func (p *planner) freeBackend(index uint32) {
	gen := p.have.maps.BackendCells[index].Gen
	p.later(bpf.SetBackendCell{Index: index, Cell: bpf.BackendCell{State: bpf.BackendFree, Gen: gen}})
}

func sortedAddrs(m map[netip.AddrPort]uint32) []netip.AddrPort {
	return slices.SortedFunc(maps.Keys(m), netip.AddrPort.Compare)
}

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

// findUnseen finds the views of groups that are not wanted any more, and that no
// cgroup names.
func (v *vipPlan) findUnseen() {
	for group := range v.have.views {
		name := v.planner.have.maps.Groups[group].Name
		if _, wanted := v.groups[name]; !wanted && v.planner.have.callers[group] == 0 {
			if v.unseen == nil {
				v.unseen = map[uint32]bool{}
			}
			v.unseen[group] = true
		}
	}
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
			return v.full("slots", h.limits.Slots, v.planner.want.need.slots, v.String())
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

// planViews makes and flips the views. A group that loses its view is answered
// as the default says before the entry goes: the default cell is asked first,
// and a program that read its old word may still look for the view.
func (v *vipPlan) planViews() error {
	h := v.planner.have
	keep := make(map[uint32]bool, len(v.want.Views))
	for _, view := range v.want.Views {
		group := v.groups[view.Group]
		keep[group] = true
		if cell, ok := v.have.views[group]; ok {
			v.flip(cell, view.Outcome, false)
			continue
		}
		if err := v.putView(view.Group, group, view.Outcome); err != nil {
			return err
		}
	}
	if err := v.planTransits(keep); err != nil {
		return err
	}
	if uint64(len(h.maps.Views))+uint64(len(keep)) > uint64(h.limits.Views) {
		if n := v.viewsAfter(); n > uint64(h.limits.Views) {
			return v.full("views", h.limits.Views, v.planner.want.need.views, v.String())
		}
	}
	for _, group := range slices.Sorted(maps.Keys(v.have.views)) {
		if keep[group] {
			continue
		}
		v.rest = true
		if !v.unseen[group] {
			v.flip(v.have.views[group], v.want.Default, false)
		}
		v.later(bpf.DelView{Key: bpf.ViewKey{Cell: v.cell, Group: group}})
	}
	return nil
}

// putView makes a view.
func (v *vipPlan) putView(name string, group uint32, o Outcome) error {
	cell, err := v.newCell()
	if err != nil {
		return err
	}
	v.do(bpf.SetCellInfo{Index: cell, Info: bpf.CellInfo{
		VIP: v.want.Name, Group: name, Family: v.want.Family, Of: v.cell}})
	v.flip(cell, o, false)
	v.do(bpf.PutView{Key: bpf.ViewKey{Cell: v.cell, Group: group}, Cell: cell})
	return nil
}

// viewsAfter is how many views there are after the writes so far.
func (v *vipPlan) viewsAfter() uint64 {
	n := uint64(len(v.planner.have.maps.Views))
	for _, w := range v.plan.Writes {
		if _, ok := w.(bpf.PutView); ok {
			n++
		}
	}
	return n
}

func (v *vipPlan) planDefault() { v.flip(v.cell, v.want.Default, len(v.want.Views) > 0) }

// planFrontends points the frontends to the VIP, which is as wanted now.
func (v *vipPlan) planFrontends() error {
	h := v.planner.have
	for _, f := range v.want.Frontends {
		if index, ok := h.maps.Frontends[f]; ok {
			ref := h.maps.FrontendRefs[index]
			if ref.Cell != v.cell {
				v.do(bpf.SetFrontendRef{Index: index, Ref: bpf.FrontendRef{Cell: v.cell, Gen: ref.Gen, Rest: isRest(f)}})
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
