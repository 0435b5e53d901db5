package bpf

import "maps"

// Split children that are counted one by one, beside their group. What their word
// says is what decides; this is who they are, so that the counters of others are
// cleared.

// pairChild is in the group of a pair that is a split child (SLB_PAIR_CHILD).
const pairChild = 1 << 31

// ChildOf stands for a split child in CounterSnapshot.Children, by its cgroup's id.
func ChildOf(id uint64) uint32 { return pairChild | uint32(id)&(pairChild-1) }

// childGone reports that a pair is that of a child which is counted no more.
func (d *Datapath) childGone(k ViewKey) bool {
	return k.Group&pairChild != 0 && !d.children[k.Group]
}

// readChildren finds those of an earlier process.
func (d *Datapath) readChildren() error {
	return each(d.maps[slicelbMapCgroups], func(id, w uint64) {
		if rule, ok := decodeCgroup(w, id); ok && rule.Counted {
			d.children[ChildOf(id)] = true
		}
	})
}

// counting makes a change of a cgroup's word, after which it is a child that is
// counted, or none. Before there is one more, the counters of those that are gone
// are cleared: there are never many more than the configuration allows. A program
// that has read a word before it changed may claim a place again; the next time
// clears that.
func (d *Datapath) counting(id uint64, counted bool, change func() error) error {
	child := ChildOf(id)
	d.pairs.Lock()
	was := d.children[child]
	d.pairs.Unlock()
	if was == counted {
		return change()
	}
	if counted {
		if err := d.prunePairs(); err != nil {
			return err
		}
		d.setChild(child, true)
	}
	err := change()
	if counted == (err != nil) {
		d.setChild(child, false)
	}
	return err
}

func (d *Datapath) setChild(child uint32, counted bool) {
	d.pairs.Lock()
	defer d.pairs.Unlock()
	if counted {
		d.children[child] = true
		return
	}
	delete(d.children, child)
	d.freedChildren = true
}

// keepChildren forgets those that are not among cgroups. The kernel deletes an entry with
// its directory; who writes may hear of that by missing it, and deletes nothing then.
func (d *Datapath) keepChildren(cgroups map[uint64]Rule) {
	d.pairs.Lock()
	defer d.pairs.Unlock()
	if len(d.children) == 0 {
		return
	}
	there := make(map[uint32]bool, len(d.children))
	for id, r := range cgroups {
		if r.Counted {
			there[ChildOf(id)] = true
		}
	}
	if !maps.Equal(there, d.children) {
		d.children, d.freedChildren = there, true
	}
}
