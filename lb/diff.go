package lb

import (
	"maps"
	"slices"

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
	if err := want.Fits(have.limits); err != nil {
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

func (p *planner) full(table string, limit uint32, wanted uint64, key string) *LimitError {
	return &LimitError{Table: table, Limit: limit, Wanted: wanted, Key: key, Change: true}
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
	out := bpf.Rule{Node: r.Node, Split: r.Split, Counted: r.Counted}
	if r.Group != "" {
		out.Group = p.groups[r.Group]
	}
	return out
}

func sameSlice[E comparable](a, b []E) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}
