package lb

import (
	"cmp"
	"iter"
	"maps"
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
	closed      []Cgroup
	cgroupsDone bool
	edges       []Edge
	edgesDone   bool
}

// region is a run of slots; refs counts the cells that name it.
type region struct {
	n    uint32
	refs int
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

	h.freeFrontends = newSpace(limits.Frontends, indexes(maps.Keys(h.frontendAt)))
	h.freeCells = newSpace(limits.Cells, indexes(maps.Keys(h.maps.Cells), maps.Keys(h.maps.CellInfos), maps.Keys(h.units)))
	inUse := map[uint32]bool{}
	for i, c := range h.maps.BackendCells {
		if c.State != bpf.BackendFree {
			inUse[i] = true
		}
	}
	h.freeBackends = newSpace(limits.Backends, indexes(maps.Keys(inUse)))
	h.freeGroups = newSpace(limits.Groups, indexes(maps.Keys(h.maps.Groups), maps.Keys(h.groupUse)))
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

// indexes are those in use, by whatever names one, and 0, which stands for nothing
// everywhere but among groups, where it is the host.
func indexes(used ...iter.Seq[uint32]) []span {
	keys := []uint32{0}
	for _, u := range used {
		keys = slices.AppendSeq(keys, u)
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
		if len(h.unseen) == 0 {
			h.unseen = map[uint64]time.Time{} // a map that was large stays so
		}
	}
	h.cgroups, h.closed, h.cgroupsDone = want.Cgroups, want.Closed, p.cgroupsDone
	h.edges, h.edgesDone = want.Edges, p.edgesDone
	h.policy.done, h.policy.of, h.policy.groups = true, want.Policy, want.Groups
}
