package lb

import (
	"slices"

	"github.com/slicelb/slicelb/bpf"
)

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
