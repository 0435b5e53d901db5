package lb

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/slicelb/slicelb/bpf"
)

// Plan is an ordered list of writes that takes what the maps hold to a State.
// After each of them every call is answered as before or as wanted; after the
// last, as wanted.
type Plan struct {
	Writes []bpf.Write

	// Barriers are positions in Writes: so many are done, and a barrier passes,
	// before the next. There is one only where slices change groups and VIPs
	// change for them in the same plan.
	Barriers []int

	// After free what Writes made unused, and are to be applied once a barrier
	// has passed since. Freeing goes in steps: the next Diff of the same State
	// says what can go then.
	After []bpf.Write

	settled     []*VIP
	cgroupsDone bool
	edgesDone   bool
}

// Diff compares. It is pure: Have is not changed. A state that does not fit the
// tables gives a *LimitError.
func Diff(have *Have, want *State) (Plan, error) {
	if err := want.fits(have.limits); err != nil {
		return Plan{}, err
	}
	p := &planner{have: have, want: want, groups: map[string]uint32{}, added: map[uint32]bool{}}
	err := p.run()
	return p.plan, err
}

// planner holds one Diff's work. What it allocates, it takes from copies of the
// free lists.
type planner struct {
	have *Have
	want *State
	plan Plan

	groups map[string]uint32
	added  map[uint32]bool // groups that this plan adds
	awake  []bpf.Write     // groups that are translated from now on
	asleep []bpf.Write     // and those that are not
	rests  []bpf.Write     // frontends that stand for all other ports
	moves  moves

	frontends, cells, backends, slots, freeGroups *space
}

func (p *planner) do(w ...bpf.Write)    { p.plan.Writes = append(p.plan.Writes, w...) }
func (p *planner) later(w ...bpf.Write) { p.plan.After = append(p.plan.After, w...) }

func (p *planner) run() error {
	if err := p.planGroups(); err != nil {
		return err
	}
	if err := p.putEdges(); err != nil {
		return err
	}
	words, err := p.planCgroups()
	if err != nil {
		return err
	}
	changes, owner := p.differing()
	at := len(p.plan.Writes)
	after := p.planMoves(words, changes)
	if err := p.planPolicy(at, words, changes, owner); err != nil {
		return err
	}
	p.do(p.asleep...)
	p.dropOrphans()
	p.dropRests(changes, owner)
	for _, c := range changes {
		if err := p.visit(c, owner); err != nil {
			return err
		}
	}
	p.do(p.rests...)
	p.do(p.awake...)
	p.do(after...)
	p.dropEdges()
	p.dropGroups()
	return nil
}

// planGroups gives every name an index before anything names it. A group that is
// not translated any more sees no VIP from here on; one that is from now on sees
// them when they are as wanted.
func (p *planner) planGroups() error {
	h := p.have
	host := bpf.Group{Name: HostGroup, Translate: true, Deny: p.want.Policy != nil && p.want.Policy.host}
	if h.maps.Groups[0] != host {
		p.do(bpf.SetGroup{Index: 0, Group: host})
	}
	p.groups[HostGroup] = 0
	for _, g := range p.want.Groups {
		index, ok := h.groups[g.Name]
		if !ok || index == 0 {
			if p.freeGroups == nil {
				p.freeGroups = h.freeGroups.clone()
			}
			if index, ok = p.freeGroups.first(); !ok {
				return p.full("groups", h.limits.Groups, p.want.need.groups, "group "+g.Name)
			}
			p.added[index] = true
		}
		p.groups[g.Name] = index
		w := bpf.SetGroup{Index: index, Group: bpf.Group{Name: g.Name, Translate: g.Translate, Deny: g.Deny, Strict: g.Strict}}
		switch old := h.maps.Groups[index]; {
		case old == w.Group:
		case old.Name == g.Name && g.Translate:
			p.awake = append(p.awake, w)
		case old.Name == g.Name:
			p.asleep = append(p.asleep, w)
		case !g.Translate && len(h.maps.Frontends) > 0:
			// Its first members come from a group that sees VIPs.
			first := w
			first.Group.Translate = true
			p.do(first)
			p.asleep = append(p.asleep, w)
		default:
			p.do(w)
		}
	}
	return nil
}

func (p *planner) full(table string, limit uint32, wanted uint64, key string) error {
	return &LimitError{Table: table, Limit: limit, Wanted: wanted, Key: key, Change: true}
}

// dropGroups frees the indexes of groups that are not wanted and that nothing
// names any more.
func (p *planner) dropGroups() {
	var drop []uint32
	for index, g := range p.have.maps.Groups {
		if at, wanted := p.groups[g.Name]; wanted && at == index || index == 0 {
			continue
		}
		if p.have.groupUse[index] == 0 {
			drop = append(drop, index)
		}
	}
	slices.Sort(drop)
	for _, index := range drop {
		p.later(bpf.SetGroup{Index: index})
	}
}

// dropOrphans frees the cells of views that are gone, and the words of
// frontends that are.
func (p *planner) dropOrphans() {
	for _, index := range slices.Sorted(maps.Keys(p.have.orphans)) {
		p.freeCell(index)
	}
	for _, index := range slices.Sorted(maps.Keys(p.have.staleRefs)) {
		p.do(bpf.SetFrontendRef{Index: index, Ref: bpf.FrontendRef{Gen: p.have.maps.FrontendRefs[index].Gen}})
	}
}

// freeCell comes before what frees the backends that the cell leads to.
func (p *planner) freeCell(index uint32) {
	if c := p.have.maps.Cells[index]; c.Action != bpf.None {
		p.later(bpf.SetCell{Index: index, Cell: bpf.Cell{Gen: nextGen(c.Gen)}})
	}
	p.later(bpf.SetCellInfo{Index: index})
}

// nextGen wraps at the bits that a cell's word has.
func nextGen(g uint16) uint16 { return (g + 1) & bpf.CellGenMask }

// rule resolves a rule's group.
func (p *planner) rule(r Rule) bpf.Rule {
	out := bpf.Rule{Node: r.Node, Split: r.Split}
	if r.Group != "" {
		out.Group = p.groups[r.Group]
	}
	return out
}

// word is one cgroup whose entry changes.
type word struct {
	id        uint64
	path      string
	had, keep bool // there is an entry; there is to be one
	old, want bpf.Rule
}

// write makes the word r.
func (w word) write(r bpf.Rule) bpf.Write {
	switch {
	case w.had:
		return bpf.SetCgroup{ID: w.id, Rule: r}
	default:
		return bpf.PutCgroup{ID: w.id, Rule: r}
	}
}

// planCgroups lists the entries of cgroups that change, by id. A directory is
// younger than those that it lies in, and ids grow: their order is the tree's,
// from the root down.
func (p *planner) planCgroups() ([]word, error) {
	h := p.have
	p.plan.cgroupsDone = true
	if h.cgroupsDone && sameSlice(h.cgroups, p.want.Cgroups) && len(p.added) == 0 {
		return nil, nil
	}
	entries := len(h.maps.Cgroups)
	most := int(h.limits.Cgroups)
	var words []word
	var first uint64 // that finds no room beside what there is
	for _, c := range p.want.Cgroups {
		w := word{id: c.ID, path: c.Path, keep: true, want: p.rule(c.Rule)}
		if w.old, w.had = h.maps.Cgroups[c.ID]; w.had && w.old == w.want {
			continue
		}
		if !w.had {
			if entries++; entries == most+1 {
				first = c.ID
			}
		}
		words = append(words, w)
	}
	gone := p.gone()
	switch {
	case entries-len(gone) > most:
		return nil, p.full("cgroups", h.limits.Cgroups, p.want.need.cgroups, fmt.Sprintf("cgroup %d", first))
	case entries > most:
		// What is not wanted makes room first: it is gone, or left out for want of room.
		for _, id := range gone {
			p.do(bpf.DelCgroup{ID: id})
		}
	default:
		for _, id := range gone {
			words = append(words, word{id: id, had: true, old: h.maps.Cgroups[id]})
		}
	}
	slices.SortFunc(words, func(a, b word) int { return cmp.Compare(a.id, b.id) })
	return words, nil
}

// flip writes words as wanted. Those that name a group are stored from the
// leaves up, the others from the root down, so that what lies deeper is not for
// a moment in a group that is neither its old nor its new one.
func flip(words []word) []bpf.Write {
	var out []bpf.Write
	for _, w := range slices.Backward(words) {
		if w.want.Group != 0 {
			out = append(out, w.write(w.want))
		}
	}
	for _, w := range words {
		switch {
		case !w.keep:
			out = append(out, bpf.DelCgroup{ID: w.id})
		case w.want.Group == 0:
			out = append(out, w.write(w.want))
		}
	}
	return out
}

// appears bounds the time from the kernel's entry for a new directory until a
// walk can find that directory. The program runs in mkdir(2) before the name is
// activated (kernel/cgroup/cgroup.c); between the two the caller may have to wait
// for a processor. A stale entry does no harm meanwhile: no id is used again.
const appears = time.Second

// gone are the entries of directories that are gone or no longer wanted.
func (p *planner) gone() []uint64 {
	h := p.have
	if !p.want.Complete {
		p.plan.cgroupsDone = false
		return nil
	}
	var ids, hidden []uint64
	closed := p.closed()
	for id, r := range h.maps.Cgroups {
		if _, wanted := slices.BinarySearchFunc(p.want.Cgroups, id, func(c Cgroup, id uint64) int { return cmp.Compare(c.ID, id) }); wanted {
			continue
		}
		// Not in this Membership, though in an earlier one, or seen long before
		// the walk began that did not find it. Else the kernel may have made it
		// for a directory that was not visible yet: a later walk will tell.
		if first, unseen := h.unseen[id]; unseen && !first.Add(appears).Before(p.want.Walked) {
			p.plan.cgroupsDone = false
			continue
		}
		if closed.holds(id, r) {
			hidden = append(hidden, id)
			continue
		}
		ids = append(ids, id)
	}
	if len(hidden) == 0 {
		return ids
	}
	// They have the room that others leave; the older stay.
	p.plan.cgroupsDone = false
	room := h.limits.OthersCgroups() - min(h.limits.OthersCgroups(), uint64(len(p.want.Cgroups)))
	slices.Sort(hidden)
	return append(ids, hidden[min(uint64(len(hidden)), room):]...)
}

func sameSlice[E comparable](a, b []E) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// putEdges adds and changes what the kernel expects. Nodes are named by what
// they expect, so a new node's edges are complete before a cgroup's word names it.
func (p *planner) putEdges() error {
	h := p.have
	if h.edgesDone && sameSlice(h.edges, p.want.Edges) && len(p.added) == 0 {
		return nil
	}
	expect, patterns := uint64(len(h.maps.Expect)), uint64(len(h.maps.Patterns))
	limit := uint64(h.limits.Expect)
	for _, e := range p.want.Edges {
		rule := p.rule(e.Rule)
		if !e.Pattern {
			k := bpf.ExpectKey{Node: e.Node, Name: e.Name}
			if old, ok := h.maps.Expect[k]; !ok {
				if expect++; expect > limit {
					return p.full("expect", h.limits.Expect, p.want.need.expect, e.key())
				}
				p.do(bpf.PutExpect{Key: k, Rule: rule})
			} else if old != rule {
				p.do(bpf.SetExpect{Key: k, Rule: rule})
			}
			continue
		}
		k := bpf.PatternKey{Node: e.Node, Ordinal: e.Ordinal}
		pattern := bpf.Pattern{Prefix: e.Prefix, Suffix: e.Suffix, Rule: rule}
		old, ok := h.maps.Patterns[k]
		switch {
		case !ok:
			if patterns++; patterns > limit {
				return p.full("expect_patterns", h.limits.Expect, p.want.need.patterns, e.key())
			}
			p.do(bpf.PutPattern{Key: k, Pattern: pattern})
		case old.Prefix != e.Prefix || old.Suffix != e.Suffix:
			p.do(bpf.DelPattern{Key: k}, bpf.PutPattern{Key: k, Pattern: pattern})
		case old.Rule != rule:
			p.do(bpf.SetPattern{Key: k, Rule: rule})
		}
	}
	return nil
}

// dropEdges deletes what is not expected any more, once no cgroup's word names
// the node: until then a directory that is made there gets what it would have
// got before.
func (p *planner) dropEdges() {
	h := p.have
	p.plan.edgesDone = true
	if h.edgesDone && sameSlice(h.edges, p.want.Edges) {
		return
	}
	if len(p.want.Edges) == len(h.maps.Expect)+len(h.maps.Patterns) && len(p.plan.Writes) == 0 {
		return
	}
	expect := map[bpf.ExpectKey]bool{}
	patterns := map[bpf.PatternKey]bool{}
	nodes := map[uint32]bool{}
	for _, e := range p.want.Edges {
		nodes[e.Node] = true
		if e.Pattern {
			patterns[bpf.PatternKey{Node: e.Node, Ordinal: e.Ordinal}] = true
		} else {
			expect[bpf.ExpectKey{Node: e.Node, Name: e.Name}] = true
		}
	}
	// A node that stays loses single edges at once; one that goes, when no word
	// names it.
	free := func(node uint32) bool { return nodes[node] || h.nodeUse[node] == 0 }
	var drop []bpf.Write
	for k := range h.maps.Expect {
		if expect[k] {
			continue
		}
		p.plan.edgesDone = false
		if free(k.Node) {
			drop = append(drop, bpf.DelExpect{Key: k})
		}
	}
	for k := range h.maps.Patterns {
		if patterns[k] {
			continue
		}
		p.plan.edgesDone = false
		if free(k.Node) {
			drop = append(drop, bpf.DelPattern{Key: k})
		}
	}
	slices.SortFunc(drop, func(a, b bpf.Write) int { return cmp.Compare(a.String(), b.String()) })
	p.later(drop...)
}
