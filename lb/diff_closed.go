package lb

import (
	"cmp"
	"slices"
	"strings"

	"github.com/slicelb/slicelb/bpf"
)

// closed judges entries of directories that no walk can see, because they lie in one
// that is closed. The kernel deletes an entry with its directory, so there is no hurry;
// what it mapped there stays mapped. But who closes a directory must not keep anything
// alive outside of it.
type closed struct {
	last  []Cgroup          // of the State before, by id
	paths []string          // of the closed directories, with a slash behind, sorted
	rules map[bpf.Rule]bool // what the kernel gives to what is made in them
}

// closed is nil where every directory could be looked into.
func (p *planner) closed() *closed {
	var todo []uint32
	c := &closed{last: p.have.cgroups, rules: map[bpf.Rule]bool{}}
	for _, d := range p.want.Closed {
		c.paths = append(c.paths, d.Path+"/")
		todo = append(todo, d.Rule.Node)
	}
	if len(c.paths) == 0 {
		return nil
	}
	slices.Sort(c.paths)
	below := map[uint32][]Rule{}
	for _, e := range p.want.Edges {
		below[e.Node] = append(below[e.Node], e.Rule)
	}
	for len(todo) > 0 {
		node := todo[0]
		todo = todo[1:]
		for _, r := range below[node] {
			if rule := p.rule(r); rule != (bpf.Rule{}) {
				c.rules[rule] = true
			}
			todo = append(todo, r.Node)
		}
		delete(below, node)
	}
	return c
}

// holds reports that an entry may be that of a directory in a closed one.
func (c *closed) holds(id uint64, r bpf.Rule) bool {
	r.Counted = false // as the kernel made it
	if c == nil || !c.rules[r] {
		return false
	}
	i, known := slices.BinarySearchFunc(c.last, id, func(c Cgroup, id uint64) int { return cmp.Compare(c.ID, id) })
	if !known {
		return true
	}
	// None of them lies in another, so the last before it is the only one to ask.
	path := c.last[i].Path
	at, _ := slices.BinarySearch(c.paths, path)
	return at > 0 && strings.HasPrefix(path, c.paths[at-1])
}
