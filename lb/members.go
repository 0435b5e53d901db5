package lb

import (
	"cmp"
	"slices"
	"strings"
)

// WithMembers is the state with another membership of the same anchor tree and
// the same daemon. It costs what the membership does, however many VIPs there are.
func (s *State) WithMembers(m Membership) *State {
	out := *s
	out.join(m)
	return &out
}

// join replaces the cgroups.
func (s *State) join(m Membership) {
	known := s.known()
	s.Complete, s.Walked = m.Complete, m.Walked
	s.Cgroups, s.Closed = make([]Cgroup, 0, len(m.Cgroups)), nil
	self := Cgroup{ID: m.Self, Rule: Rule{Group: DaemonGroup}}
	for _, c := range m.Cgroups {
		if c.Closed {
			s.Closed = append(s.Closed, Cgroup{ID: c.ID, Path: c.Path, Rule: Rule{Node: uint32(c.match().Node)}})
		}
		if c.ID == m.Self {
			// What is expected below it stays.
			self.Path, self.Rule.Node = c.Path, uint32(c.match().Node)
			continue
		}
		if rule := memberRule(c, known); rule != (Rule{}) {
			s.Cgroups = append(s.Cgroups, Cgroup{c.ID, c.Path, rule, c.place()})
		}
	}
	if m.Self != 0 && known[DaemonGroup] {
		s.Cgroups = append(s.Cgroups, self)
	}
	slices.SortFunc(s.Cgroups, func(a, b Cgroup) int { return cmp.Compare(a.ID, b.ID) })
	s.Cgroups = slices.CompactFunc(s.Cgroups, func(a, b Cgroup) bool { return a.ID == b.ID })
	s.countChildren()
	s.need.cgroups, s.left = uint64(len(s.Cgroups)), 0
}

// countChildren gives counters of their own to as many split children as each group
// asks for. Ids grow, so these are the oldest: one that has counters keeps them.
func (s *State) countChildren() {
	room := map[string]uint32{}
	for _, g := range s.Groups {
		if g.Children > 0 {
			room[g.Name] = g.Children
		}
	}
	if len(room) == 0 {
		return
	}
	for i := range s.Cgroups {
		if r := &s.Cgroups[i].Rule; r.Split && room[r.Group] > 0 {
			room[r.Group]--
			r.Counted = true
		}
	}
}

// memberRule is a cgroup's word. What the tree says of the directory itself
// comes first. A member below an anchor repeats the group that it is in, so
// that its callers are found at the first look-up; below a split child it does
// not, because the entry that says which child must be the nearest.
func memberRule(m Member, known map[string]bool) Rule {
	match := m.match()
	r := Rule{Group: match.Group, Node: uint32(match.Node), Split: match.Split}
	if r.Group == "" && !strings.Contains(m.Group, "/") {
		r.Group = m.Group
	}
	if !known[r.Group] {
		r.Group, r.Split = "", false
	}
	return r
}
