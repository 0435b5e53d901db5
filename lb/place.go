package lb

import "github.com/slicelb/slicelb/bpf"

// Place is how a cgroup stands where there is no room for all.
type Place uint8

const (
	Needed  Place = iota // its entry decides who is in which group, and root made it
	Foreign              // its entry decides that, and anybody may have made it
	Repeats              // its entry says what that of a cgroup around it does, only sooner
)

// place is that of a member's entry.
func (m *Member) place() Place {
	switch match := m.match(); {
	case match.Group == "" && match.Node == 0:
		return Repeats
	case m.Foreign:
		return Foreign
	}
	return Needed
}

// within is s with no more cgroups than there is room for: those that others than
// root can make may not take all of it, and those that only make a look-up shorter
// take what these leave. The older stay. A caller whose cgroup is left out is
// in the group of what it lies in.
func (s *State) within(l bpf.Limits) *State {
	if s.need.cgroups <= l.OthersCgroups() {
		return s
	}
	var each [3]uint64
	for i := range s.Cgroups {
		each[s.Cgroups[i].Place]++
	}
	var most [3]uint64
	most[Needed] = each[Needed]
	most[Foreign] = min(each[Foreign], othersRoom(l, most[Needed]))
	most[Repeats] = min(each[Repeats], othersRoom(l, most[Needed]+most[Foreign]))
	out := *s
	out.Cgroups = make([]Cgroup, 0, most[Needed]+most[Foreign]+most[Repeats])
	for _, c := range s.Cgroups {
		if most[c.Place] > 0 {
			most[c.Place]--
			out.Cgroups = append(out.Cgroups, c)
		}
	}
	out.left = len(s.Cgroups) - len(out.Cgroups)
	out.need.cgroups = uint64(len(out.Cgroups))
	return &out
}

// othersRoom is how many entries that others than root can make there may be beside so
// many.
func othersRoom(l bpf.Limits, beside uint64) uint64 {
	return l.OthersCgroups() - min(l.OthersCgroups(), beside)
}
