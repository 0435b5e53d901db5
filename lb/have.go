package lb

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/slicelb/slicelb/bpf"
)

// Have mirrors what the maps hold, with everything that follows from it: which
// indexes and slots are free, what hangs on which VIP. NewHave reads it off a
// dump; write keeps it true. Only its owner, the reconciler, changes it.
type Have struct {
	limits bpf.Limits
	maps   bpf.Dump

	units  map[uint32]*unit // by default cell; what names a cell without a name too
	byName map[unitName][]*unit
	twins  int     // names with several units
	order  []*unit // of the VIPs of the last State, a shortcut to byName

	frontendAt map[uint32]bpf.FrontendKey // by index
	viewOf     map[uint32]bpf.ViewKey     // by the view's cell
	orphans    map[uint32]bool            // view cells that no view names
	staleRefs  map[uint32]bool            // frontend words that name a cell and that no frontend names
	groups     map[string]uint32
	groupUse   map[uint32]int // entries that name a group: views, cgroups, expect, patterns
	callers    map[uint32]int // cgroups whose word names a group
	nodeUse    map[uint32]int // cgroups whose word names a node
	regions    map[uint32]*region
	unseen     map[uint64]time.Time // cgroups that no Membership has named -> first seen in a dump

	freeFrontends, freeCells, freeBackends, freeGroups, freeSlots, freePolicy *space

	policy policyHave

	// limbo is what nothing names any more, in the order in which it came; it
	// is free once a barrier has passed.
	limbo []limbo

	// What was found equal to, or made equal to, a State.
	cgroups     []Cgroup
	cgroupsDone bool
	edges       []Edge
	edgesDone   bool
}

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

// region is a run of slots; refs counts the cells that name it.
type region struct {
	n    uint32
	refs int
}

type limboKind uint8

const (
	limboFrontend limboKind = iota
	limboBackend
	limboRegion
	limboPolicy
)

type limbo struct {
	kind limboKind
	at   uint32
}

// NewHave mirrors a dump, which it takes over. What nothing in it names counts
// as free: a barrier must have passed since the dump's maps had another writer.
// now is when the dump began.
func NewHave(d *bpf.Dump, limits bpf.Limits, now time.Time) *Have {
	h := &Have{
		limits: limits,
		maps: bpf.Dump{
			Frontends:    map[bpf.FrontendKey]uint32{},
			FrontendRefs: nonNil(d.FrontendRefs),
			Cells:        map[uint32]bpf.Cell{},
			CellInfos:    map[uint32]bpf.CellInfo{},
			Views:        map[bpf.ViewKey]uint32{},
			Backends:     nonNil(d.Backends),
			BackendCells: map[uint32]bpf.BackendCell{},
			Slots:        nonNil(d.Slots),
			Groups:       map[uint32]bpf.Group{},
			Cgroups:      map[uint64]bpf.Rule{},
			Expect:       map[bpf.ExpectKey]bpf.Rule{},
			Patterns:     map[bpf.PatternKey]bpf.Pattern{},
		},
		units:      map[uint32]*unit{},
		byName:     map[unitName][]*unit{},
		frontendAt: map[uint32]bpf.FrontendKey{},
		viewOf:     map[uint32]bpf.ViewKey{},
		orphans:    map[uint32]bool{},
		staleRefs:  map[uint32]bool{},
		groups:     map[string]uint32{},
		groupUse:   map[uint32]int{},
		callers:    map[uint32]int{},
		nodeUse:    map[uint32]int{},
		regions:    map[uint32]*region{},
		unseen:     map[uint64]time.Time{},
	}
	for i, ref := range h.maps.FrontendRefs {
		if ref.Cell != 0 {
			h.staleRefs[i] = true
		}
	}
	for i, info := range d.CellInfos {
		h.setCellInfo(i, info)
	}
	for i, c := range d.Cells {
		h.setCell(i, c)
	}
	for base := range h.maps.Slots {
		if h.regions[base] == nil {
			delete(h.maps.Slots, base)
		}
	}
	for k, i := range d.Frontends {
		h.putFrontend(k, i)
	}
	for k, cell := range d.Views {
		h.putView(k, cell)
	}
	for i, c := range d.BackendCells {
		h.setBackendCell(i, c)
	}
	for i, g := range d.Groups {
		h.setGroup(i, g)
	}
	for id, r := range d.Cgroups {
		h.setCgroup(id, r)
		h.unseen[id] = now
	}
	for k, r := range d.Expect {
		h.setExpect(k, r)
	}
	for k, p := range d.Patterns {
		h.setPattern(k, p)
	}

	for i := range h.maps.Cells {
		if _, named := h.maps.CellInfos[i]; !named && h.units[i] == nil && i != 0 {
			h.orphans[i] = true
		}
	}

	h.freeFrontends = newSpace(limits.Frontends, indexes(h.frontendAt))
	h.freeCells = newSpace(limits.Cells, indexes(h.maps.Cells, h.maps.CellInfos, h.units))
	inUse := map[uint32]bool{0: true}
	for i, c := range h.maps.BackendCells {
		if c.State != bpf.BackendFree {
			inUse[i] = true
		}
	}
	h.freeBackends = newSpace(limits.Backends, indexes(inUse))
	h.freeGroups = newSpace(limits.Groups, indexes(h.maps.Groups, h.groupUse))
	var used []span
	for base, r := range h.regions {
		used = append(used, span{base, r.n})
	}
	slices.SortFunc(used, func(a, b span) int { return cmp.Compare(a.base, b.base) })
	h.freeSlots = newSpace(limits.Slots, used)
	h.readPolicy(d)
	h.limbo = nil
	return h
}

// indexes are the keys of the first map and of the others, and 0, which stands
// for nothing everywhere but among groups, where it is the host.
func indexes[A any](first map[uint32]A, more ...any) []span {
	keys := append(slices.Collect(maps.Keys(first)), 0)
	for _, m := range more {
		switch m := m.(type) {
		case map[uint32]bpf.CellInfo:
			keys = slices.AppendSeq(keys, maps.Keys(m))
		case map[uint32]*unit:
			keys = slices.AppendSeq(keys, maps.Keys(m))
		case map[uint32]int:
			keys = slices.AppendSeq(keys, maps.Keys(m))
		}
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	out := make([]span, len(keys))
	for i, k := range keys {
		out[i] = span{k, 1}
	}
	return out
}

func nonNil[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return m
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

// write applies one write that was done.
func (h *Have) write(w bpf.Write) {
	switch w := w.(type) {
	case bpf.PutFrontend:
		h.freeFrontends.take(w.Index, 1)
		h.putFrontend(w.Key, w.Index)
	case bpf.DelFrontend:
		h.delFrontend(w.Key)
	case bpf.SetFrontendRef:
		h.setFrontendRef(w.Index, w.Ref)
	case bpf.SetCell:
		h.setCell(w.Index, w.Cell)
	case bpf.SetCellInfo:
		if w.Info.Family != 0 {
			h.freeCells.take(w.Index, 1)
		} else {
			h.freeCells.give(w.Index, 1)
		}
		h.setCellInfo(w.Index, w.Info)
	case bpf.PutView:
		h.putView(w.Key, w.Cell)
	case bpf.DelView:
		h.delView(w.Key)
	case bpf.SetSlots:
		h.freeSlots.take(w.Base, uint32(len(w.Slots)))
		h.maps.Slots[w.Base] = w.Slots
		h.regions[w.Base] = &region{n: uint32(len(w.Slots))}
	case bpf.SetBackend:
		h.freeBackends.take(w.Index, 1)
		h.maps.Backends[w.Index] = w.Backend
	case bpf.SetBackendCell:
		h.setBackendCell(w.Index, w.Cell)
	case bpf.SetGroup:
		if w.Group.Name != "" {
			h.freeGroups.take(w.Index, 1)
		} else {
			h.freeGroups.give(w.Index, 1)
		}
		h.setGroup(w.Index, w.Group)
	case bpf.SetPolicyTable:
		h.setPolicyTable(w)
	case bpf.SetPolicy:
		h.setPolicy(w)
	case bpf.PutCgroup:
		h.setCgroup(w.ID, w.Rule)
	case bpf.SetCgroup:
		h.setCgroup(w.ID, w.Rule)
	case bpf.DelCgroup:
		h.delCgroup(w.ID)
		delete(h.unseen, w.ID)
	case bpf.PutExpect:
		h.setExpect(w.Key, w.Rule)
	case bpf.SetExpect:
		h.setExpect(w.Key, w.Rule)
	case bpf.DelExpect:
		h.use(h.maps.Expect[w.Key].Group, -1)
		delete(h.maps.Expect, w.Key)
	case bpf.PutPattern:
		h.setPattern(w.Key, w.Pattern)
	case bpf.SetPattern:
		p := h.maps.Patterns[w.Key]
		p.Rule = w.Rule
		h.setPattern(w.Key, p)
	case bpf.DelPattern:
		h.use(h.maps.Patterns[w.Key].Rule.Group, -1)
		delete(h.maps.Patterns, w.Key)
	}
}

func (h *Have) putFrontend(k bpf.FrontendKey, index uint32) {
	h.maps.Frontends[k] = index
	h.frontendAt[index] = k
	delete(h.staleRefs, index)
	h.at(h.maps.FrontendRefs[index].Cell).frontends[k] = index
}

func (h *Have) delFrontend(k bpf.FrontendKey) {
	index, ok := h.maps.Frontends[k]
	if !ok {
		return
	}
	delete(h.maps.Frontends, k)
	delete(h.frontendAt, index)
	ref := h.maps.FrontendRefs[index]
	u := h.at(ref.Cell)
	delete(u.frontends, k)
	h.forget(u)
	if ref.Cell != 0 {
		h.staleRefs[index] = true
	}
	h.limbo = append(h.limbo, limbo{limboFrontend, index})
}

func (h *Have) setFrontendRef(index uint32, ref bpf.FrontendRef) {
	old := h.maps.FrontendRefs[index]
	h.maps.FrontendRefs[index] = ref
	if k, ok := h.frontendAt[index]; ok {
		u := h.at(old.Cell)
		delete(u.frontends, k)
		h.forget(u)
		h.at(ref.Cell).frontends[k] = index
		return
	}
	if ref.Cell != 0 {
		h.staleRefs[index] = true
	} else {
		delete(h.staleRefs, index)
	}
}

func (h *Have) setCell(index uint32, c bpf.Cell) {
	old := h.maps.Cells[index]
	h.maps.Cells[index] = c
	if u := h.units[index]; u != nil {
		u.settled = false
	}
	if u := h.units[h.viewOf[index].Cell]; u != nil {
		u.settled = false
	}
	if c.Action == bpf.Balance {
		r := h.regions[c.Base]
		if r == nil {
			r = &region{n: c.Count}
			h.regions[c.Base] = r
		}
		r.refs++
	}
	if old.Action == bpf.Balance {
		if r := h.regions[old.Base]; r != nil {
			if r.refs--; r.refs == 0 {
				h.limbo = append(h.limbo, limbo{limboRegion, old.Base})
			}
		}
	}
	if c == (bpf.Cell{}) {
		delete(h.maps.Cells, index)
	}
}

func (h *Have) setCellInfo(index uint32, info bpf.CellInfo) {
	old := h.maps.CellInfos[index]
	if old.Family != 0 && old.Group == "" {
		u := h.at(index)
		h.called(u, unitName{})
		h.forget(u)
	}
	delete(h.orphans, index)
	if info.Family == 0 {
		delete(h.maps.CellInfos, index)
		return
	}
	h.maps.CellInfos[index] = info
	if info.Group == "" {
		h.called(h.at(index), unitName{info.VIP, info.Family})
	} else if _, ok := h.viewOf[index]; !ok {
		h.orphans[index] = true
	}
}

func (h *Have) putView(k bpf.ViewKey, cell uint32) {
	h.maps.Views[k] = cell
	h.viewOf[cell] = k
	delete(h.orphans, cell)
	h.at(k.Cell).views[k.Group] = cell
	h.use(k.Group, 1)
}

func (h *Have) delView(k bpf.ViewKey) {
	cell, ok := h.maps.Views[k]
	if !ok {
		return
	}
	delete(h.maps.Views, k)
	delete(h.viewOf, cell)
	u := h.at(k.Cell)
	delete(u.views, k.Group)
	h.forget(u)
	h.use(k.Group, -1)
	h.orphans[cell] = true
}

func (h *Have) setBackendCell(index uint32, c bpf.BackendCell) {
	old := h.maps.BackendCells[index]
	h.maps.BackendCells[index] = c
	b := h.maps.Backends[index]
	if c.State != bpf.BackendFree {
		h.at(b.Cell).backends[b.Addr] = index
		return
	}
	if old.State != bpf.BackendFree {
		u := h.at(b.Cell)
		if u.backends[b.Addr] == index {
			delete(u.backends, b.Addr)
		}
		h.forget(u)
		h.limbo = append(h.limbo, limbo{limboBackend, index})
	}
}

func (h *Have) setGroup(index uint32, g bpf.Group) {
	if old := h.maps.Groups[index]; old.Name != "" && h.groups[old.Name] == index {
		delete(h.groups, old.Name)
	}
	if g.Name == "" {
		delete(h.maps.Groups, index)
		return
	}
	h.maps.Groups[index] = g
	h.groups[g.Name] = index
}

func (h *Have) setCgroup(id uint64, r bpf.Rule) {
	h.delCgroup(id)
	h.maps.Cgroups[id] = r
	h.use(r.Group, 1)
	tally(h.callers, r.Group, 1)
	tally(h.nodeUse, r.Node, 1)
}

func (h *Have) delCgroup(id uint64) {
	old := h.maps.Cgroups[id]
	h.use(old.Group, -1)
	tally(h.callers, old.Group, -1)
	tally(h.nodeUse, old.Node, -1)
	delete(h.maps.Cgroups, id)
}

func (h *Have) setExpect(k bpf.ExpectKey, r bpf.Rule) {
	h.use(h.maps.Expect[k].Group, -1)
	h.use(r.Group, 1)
	h.maps.Expect[k] = r
}

func (h *Have) setPattern(k bpf.PatternKey, p bpf.Pattern) {
	h.use(h.maps.Patterns[k].Rule.Group, -1)
	h.use(p.Rule.Group, 1)
	h.maps.Patterns[k] = p
}

// use counts what names a group.
func (h *Have) use(group uint32, n int) { tally(h.groupUse, group, n) }

// tally counts by index, of which 0 stands for none.
func tally(m map[uint32]int, index uint32, n int) {
	if index == 0 {
		return
	}
	if m[index] += n; m[index] <= 0 {
		delete(m, index)
	}
}

// refresh takes over a newer dump of cgroups, which the kernel changes too. now
// is when that dump began.
func (h *Have) refresh(cgroups map[uint64]bpf.Rule, now time.Time) {
	for id := range h.maps.Cgroups {
		if _, ok := cgroups[id]; !ok {
			h.delCgroup(id)
			delete(h.unseen, id)
			h.cgroupsDone = false
		}
	}
	for id, r := range cgroups {
		old, ok := h.maps.Cgroups[id]
		if ok && old == r {
			continue
		}
		if !ok {
			h.unseen[id] = now
		}
		h.setCgroup(id, r)
		h.cgroupsDone = false
	}
}

// release frees the first n things in limbo.
func (h *Have) release(n int) {
	free := slices.Clone(h.limbo[:n])
	h.limbo = slices.Delete(h.limbo, 0, n)
	slices.SortFunc(free, func(a, b limbo) int { return cmp.Compare(a.at, b.at) })
	for _, l := range free {
		switch l.kind {
		case limboFrontend:
			h.freeFrontends.give(l.at, 1)
		case limboBackend:
			h.freeBackends.give(l.at, 1)
		case limboRegion:
			if r := h.regions[l.at]; r != nil && r.refs == 0 {
				h.freeSlots.give(l.at, r.n)
				delete(h.regions, l.at)
				delete(h.maps.Slots, l.at)
			}
		case limboPolicy:
			h.freePolicy.give(l.at, h.policy.tables[l.at].lines)
			delete(h.policy.tables, l.at)
		}
	}
}

// settle remembers what a finished plan has made equal to want.
func (h *Have) settle(p Plan, want *State) {
	for _, m := range p.settled {
		if u := h.unit(unitName{m.Name, m.Family}); u != nil {
			u.settled, u.tables, u.whole = true, m.tables, m.whole
		}
	}
	order := make([]*unit, len(want.VIPs))
	for i, v := range want.VIPs {
		order[i] = h.unitAt(i, v)
	}
	h.order = order
	if len(h.unseen) > 0 {
		for _, c := range want.Cgroups {
			delete(h.unseen, c.ID)
		}
	}
	h.cgroups, h.cgroupsDone = want.Cgroups, p.cgroupsDone
	h.edges, h.edgesDone = want.Edges, p.edgesDone
	h.policy.done, h.policy.of, h.policy.groups = true, want.Policy, want.Groups
}
