package lb

import (
	"cmp"
	"slices"

	"github.com/slicelb/slicelb/bpf"
)

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
