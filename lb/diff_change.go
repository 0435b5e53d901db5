package lb

import (
	"cmp"
	"maps"
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

func sortedFrontends(m map[bpf.FrontendKey]uint32) []bpf.FrontendKey {
	return slices.SortedFunc(maps.Keys(m), compareFrontends)
}
