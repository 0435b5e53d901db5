package lb

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/slicelb/slicelb/bpf"
)

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
	if h.cgroupsDone && sameSlice(h.cgroups, p.want.Cgroups) && sameSlice(h.closed, p.want.Closed) &&
		sameSlice(h.edges, p.want.Edges) && len(p.added) == 0 {
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

// gone are the entries of directories that are gone or no longer wanted. Those that may
// be in a closed directory stay, and are changed here where they count.
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
	// They have the room that others leave; the older stay. None has counters of its
	// own: the counters that a group's children may have are for those that are seen.
	room := othersRoom(h.limits, uint64(len(p.want.Cgroups)))
	slices.Sort(hidden)
	stay := min(uint64(len(hidden)), room)
	for _, id := range hidden[:stay] {
		if r := h.maps.Cgroups[id]; r.Counted {
			r.Counted = false
			p.do(bpf.SetCgroup{ID: id, Rule: r})
		}
	}
	return append(ids, hidden[stay:]...)
}
