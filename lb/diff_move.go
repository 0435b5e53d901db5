package lb

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/slicelb/slicelb/bpf"
)

// Where slices change groups and VIPs change in one plan, a caller must see both
// changes at once: in its old group the new VIPs, or in its new group the old
// ones, might hide from it what it sees before and after.
//
// Often one order will do: the groups first, where each caller's new group is
// answered by the old VIPs as its old group is; or last, where its old group is
// answered by the new VIPs as its new one. Else its cgroup goes by way of a
// group that is made for this plan alone: a transit, which is answered as the
// old group is, then, VIP by VIP, as the new one will be.

// move is how the group of some callers changes.
type move struct{ from, to uint32 }

// moves holds the transits of a plan.
type moves struct {
	transit map[move]uint32        // group index
	cells   map[bpf.ViewKey]uint32 // {default cell, transit} -> view cell made for it
	words   map[uint32]bpf.Cell    // of those cells
	names   map[uint32]string      // of transits
}

// transitName is one that no configured group can have.
func transitName(m move) string { return fmt.Sprintf(">%d>%d", m.from, m.to) }

// planMoves writes what must come before the VIPs change, and returns what must
// come after.
func (p *planner) planMoves(words []word, changes []*change) []bpf.Write {
	if len(p.have.maps.Frontends) == 0 {
		p.do(flip(words)...) // before there is anything to see
		return nil
	}
	if len(words) == 0 || len(changes) == 0 {
		return flip(words)
	}
	callers := p.regrouped(words)
	if len(callers) == 0 {
		return flip(words)
	}
	kinds := map[move]bool{}
	for _, m := range callers {
		kinds[m] = true
	}
	first, last := true, true
	for m := range kinds {
		first = first && p.alikeBefore(m, changes)
		last = last && p.alikeAfter(m, changes)
	}
	switch {
	case first:
		p.do(flip(words)...)
		p.barrier()
		return nil
	case last || !p.makeTransits(kinds):
		return flip(words)
	}
	for _, w := range slices.Backward(words) {
		m, moves := callers[w.id]
		switch {
		case moves:
			p.do(w.write(bpf.Rule{Group: p.moves.transit[m], Node: w.old.Node, Split: w.old.Split, Counted: w.old.Counted}))
		case w.want.Group != 0:
			p.do(w.write(w.want))
		}
	}
	p.barrier()
	var rest []word
	for _, w := range words {
		if _, moves := callers[w.id]; moves {
			w.had = true
			rest = append(rest, w)
		} else if w.want.Group == 0 {
			rest = append(rest, w)
		}
	}
	return flip(rest)
}

// barrier lets the programs that read the words before see the VIPs as they were.
func (p *planner) barrier() { p.plan.Barriers = append(p.plan.Barriers, len(p.plan.Writes)) }

// regrouped says for each word how the group of the callers that it stands for
// changes, if it does.
func (p *planner) regrouped(words []word) map[uint64]move {
	h := p.have
	wanted := make(map[uint64]uint32, len(p.want.Cgroups))
	ids := make(map[string]uint64, len(p.want.Cgroups))
	paths := map[uint64]string{}
	for _, c := range h.cgroups {
		ids[c.Path], paths[c.ID] = c.ID, c.Path
	}
	for _, c := range p.want.Cgroups {
		ids[c.Path] = c.ID
		wanted[c.ID] = p.rule(c.Rule).Group
	}
	group := func(w word, of func(uint64) uint32) uint32 {
		if g := of(w.id); g != 0 {
			return g
		}
		at := w.path
		if at == "" {
			at = paths[w.id]
		}
		for at != "" && at != "/" {
			at = path.Dir(at)
			if id, ok := ids[at]; ok {
				if g := of(id); g != 0 {
					return g
				}
			}
		}
		return 0
	}
	out := map[uint64]move{}
	for _, w := range words {
		if !w.keep && paths[w.id] == "" {
			continue // where it lies, and whether it still exists, is not known
		}
		m := move{
			from: group(w, func(id uint64) uint32 { return h.maps.Cgroups[id].Group }),
			to:   group(w, func(id uint64) uint32 { return wanted[id] }),
		}
		if m.from != m.to {
			out[w.id] = m
		}
	}
	return out
}

// alikeBefore reports whether the VIPs that change answer both groups alike now.
func (p *planner) alikeBefore(m move, changes []*change) bool {
	if see := p.translatedBefore(m.from); see != p.translatedBefore(m.to) || !see {
		return see == p.translatedBefore(m.to)
	}
	for _, c := range changes {
		if c.have == nil || len(c.have.frontends) == 0 {
			continue
		}
		if !alike(p.cellBefore(c.have, m.from), p.cellBefore(c.have, m.to)) {
			return false
		}
	}
	return true
}

// alikeAfter reports whether they will.
func (p *planner) alikeAfter(m move, changes []*change) bool {
	if see := p.translatedAfter(m.from); see != p.translatedAfter(m.to) || !see {
		return see == p.translatedAfter(m.to)
	}
	from, to := p.nameOf(m.from), p.nameOf(m.to)
	for _, c := range changes {
		if c.want != nil && c.want.outcome(from) != c.want.outcome(to) {
			return false
		}
	}
	return true
}

func (p *planner) translatedBefore(group uint32) bool {
	return group == 0 || p.added[group] || p.have.maps.Groups[group].Translate
}

func (p *planner) translatedAfter(group uint32) bool {
	name := p.nameOf(group)
	for _, g := range p.want.Groups {
		if g.Name == name {
			return g.Translate
		}
	}
	return p.translatedBefore(group)
}

// nameOf is the name that a group has after this plan's first writes.
func (p *planner) nameOf(group uint32) string {
	if group == 0 {
		return HostGroup
	}
	if g := p.have.maps.Groups[group]; g.Name != "" {
		return g.Name
	}
	for name, index := range p.groups {
		if index == group {
			return name
		}
	}
	return ""
}

// cellBefore is the word that answers a group now.
func (p *planner) cellBefore(u *unit, group uint32) bpf.Cell {
	word := p.have.maps.Cells[u.cell]
	if word.Selective {
		if cell, ok := u.views[group]; ok {
			return p.have.maps.Cells[cell]
		}
	}
	return word
}

func alike(a, b bpf.Cell) bool {
	a.Selective, b.Selective, a.Gen, b.Gen = false, false, 0, 0
	return a == b
}

// outcome is what the VIP answers a group.
func (v *VIP) outcome(group string) Outcome {
	i, ok := slices.BinarySearchFunc(v.Views, group, func(w View, name string) int { return strings.Compare(w.Group, name) })
	if ok {
		return v.Views[i].Outcome
	}
	return v.Default
}

// makeTransits makes a group for each kind of move, with the views that it begins
// with. False: there is no room for that, and nothing is
// written.
func (p *planner) makeTransits(kinds map[move]bool) bool {
	h := p.have
	if p.freeGroups == nil {
		p.freeGroups = h.freeGroups.clone()
	}
	if p.cells == nil {
		p.cells = h.freeCells.clone()
	}
	order := slices.SortedFunc(maps.Keys(kinds), func(a, b move) int { return strings.Compare(transitName(a), transitName(b)) })
	units := slices.SortedFunc(maps.Values(h.units), func(a, b *unit) int { return int(a.cell) - int(b.cell) })
	views := 0
	for _, m := range order {
		for _, u := range units {
			if _, ok := u.views[p.alikeAtFirst(m)]; ok {
				views++
			}
		}
	}
	// The VIPs to come need room as well: at most as much for each move.
	spare := uint64(len(order)) * uint64(len(p.want.VIPs))
	if uint64(p.freeGroups.room()) < uint64(len(order)) ||
		uint64(p.cells.room()) < uint64(views)+spare+p.want.need.cells ||
		uint64(len(h.maps.Views))+uint64(views)+spare+p.want.need.views > uint64(h.limits.Views) {
		return false
	}

	p.moves = moves{
		transit: map[move]uint32{}, cells: map[bpf.ViewKey]uint32{},
		words: map[uint32]bpf.Cell{}, names: map[uint32]string{},
	}
	for _, m := range order {
		index, _ := p.freeGroups.first()
		name := transitName(m)
		p.moves.transit[m], p.moves.names[index] = index, name
		before := bpf.SetGroup{Index: index, Group: bpf.Group{Name: name, Translate: p.translatedBefore(m.from)}}
		after := before
		after.Group.Translate = p.translatedAfter(m.to)
		p.do(before)
		switch {
		case before == after:
		case after.Group.Translate:
			p.awake = append(p.awake, after)
		default:
			p.asleep = append(p.asleep, after)
		}
		for _, u := range units {
			old, ok := u.views[p.alikeAtFirst(m)]
			if !ok || u.name == (unitName{}) {
				continue
			}
			cell, _ := p.takeCell()
			word := h.maps.Cells[old]
			word.Gen = nextGen(h.maps.Cells[cell].Gen)
			key := bpf.ViewKey{Cell: u.cell, Group: index}
			p.moves.cells[key], p.moves.words[cell] = cell, word
			p.do(bpf.SetCellInfo{Index: cell, Info: bpf.CellInfo{
				VIP: u.name.vip, Group: name, Family: u.name.family, Of: u.cell}},
				bpf.SetCell{Index: cell, Cell: word}, bpf.PutView{Key: key, Cell: cell})
		}
	}
	return true
}

// alikeAtFirst is the group whose views a transit begins with: the one that is
// left; the one to come where the callers see no VIP until they get there.
func (p *planner) alikeAtFirst(m move) uint32 {
	if p.translatedBefore(m.from) {
		return m.from
	}
	return m.to
}

// planTransits makes the VIP answer those on the way as it answers the group
// that they go to.
func (v *vipPlan) planTransits(keep map[uint32]bool) error {
	for _, m := range slices.SortedFunc(maps.Keys(v.moves.transit), func(a, b move) int {
		return strings.Compare(transitName(a), transitName(b))
	}) {
		index, to := v.moves.transit[m], v.nameOf(m.to)
		keep[index] = true
		o := v.want.outcome(to)
		if cell, ok := v.moves.cells[bpf.ViewKey{Cell: v.cell, Group: index}]; ok {
			v.rest = true
			c := v.moves.words[cell]
			w, _ := v.word(cell, o, false)
			if w.Gen = nextGen(c.Gen); !alike(c, w) {
				v.do(bpf.SetCell{Index: cell, Cell: w})
			}
			continue
		}
		if o == v.want.Default {
			continue
		}
		v.rest = true
		if err := v.putView(v.moves.names[index], index, o); err != nil {
			return err
		}
	}
	return nil
}
