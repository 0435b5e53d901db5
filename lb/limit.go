package lb

import (
	"fmt"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
)

// LimitError says that a state does not fit a table. Nothing was written.
// errors.Is(err, bpf.ErrFull) holds.
type LimitError struct {
	Table  string // the map's name
	Limit  uint32 // its capacity
	Wanted uint64 // what the state takes
	Key    string // the first that finds no room
	VIP    string // where it is the slots of one, beside those that they replace

	// Change is set where the state would fit by itself, but not beside what it
	// replaces, which is freed only after nothing uses it any more.
	Change bool
}

func (e *LimitError) Error() string {
	if e.Change {
		return fmt.Sprintf("table %s (%d entries) has no room for %s beside what it replaces: %d are wanted",
			e.Table, e.Limit, e.Key, e.Wanted)
	}
	return fmt.Sprintf("table %s has %d entries, %d are wanted: no room for %s", e.Table, e.Limit, e.Wanted, e.Key)
}

func (e *LimitError) Is(target error) bool { return target == bpf.ErrFull }

// Fits says whether the state has room in empty tables of those sizes. What has none
// is a *LimitError. Index 0 of frontends, cells and backends stands for nothing.
func (s *State) Fits(l bpf.Limits) error {
	frontends, cells := less(l.Frontends), less(l.Cells)
	backends := less(l.Backends)
	n := s.need
	if n.frontends <= frontends && n.cells <= cells && n.views <= uint64(l.Views) &&
		n.backends <= backends && n.slots <= uint64(l.Slots) && n.groups <= uint64(l.Groups) &&
		n.cgroups <= uint64(l.Cgroups) && n.expect <= uint64(l.Expect) && n.patterns <= uint64(l.Expect) &&
		n.policy <= less(l.PolicyLines) {
		return nil
	}
	var used need
	over := func(table string, limit uint32, room, used, wanted uint64, key func() string) error {
		if used <= room {
			return nil
		}
		return &LimitError{Table: table, Limit: limit, Wanted: wanted, Key: key()}
	}
	for i := range s.Groups {
		if err := over("groups", l.Groups, uint64(l.Groups), uint64(i)+2, n.groups,
			func() string { return "group " + s.Groups[i].Name }); err != nil {
			return err
		}
	}
	if err := over("policy_lines", l.PolicyLines, less(l.PolicyLines), n.policy, n.policy, s.Policy.key); err != nil {
		return err
	}
	for _, v := range s.VIPs {
		name := func() string { return fmt.Sprintf("vip %s (IPv%d)", v.Name, v.Family) }
		for _, f := range v.Frontends {
			used.frontends++
			if err := over("frontends", l.Frontends, frontends, used.frontends, n.frontends, f.String); err != nil {
				return err
			}
		}
		used.cells += 1 + uint64(len(v.Views))
		if err := over("cells", l.Cells, cells, used.cells, n.cells, name); err != nil {
			return err
		}
		used.views += uint64(len(v.Views))
		if err := over("views", l.Views, uint64(l.Views), used.views, n.views, name); err != nil {
			return err
		}
		used.backends += uint64(len(v.Backends))
		if err := over("backends", l.Backends, backends, used.backends, n.backends, name); err != nil {
			return err
		}
		used.slots += uint64(v.slotCount())
		if err := over("slots", l.Slots, uint64(l.Slots), used.slots, n.slots, name); err != nil {
			return err
		}
	}
	for i, c := range s.Cgroups {
		if err := over("cgroups", l.Cgroups, uint64(l.Cgroups), uint64(i)+1, n.cgroups,
			func() string { return fmt.Sprintf("cgroup %d", c.ID) }); err != nil {
			return err
		}
	}
	for _, e := range s.Edges {
		table, at := "expect", &used.expect
		wanted := n.expect
		if e.Pattern {
			table, at, wanted = "expect_patterns", &used.patterns, n.patterns
		}
		*at++
		if err := over(table, l.Expect, uint64(l.Expect), *at, wanted, func() string { return e.key() }); err != nil {
			return err
		}
	}
	return nil
}

// Fits says whether what cfg names has room in new tables, where that is known
// beforehand: backends that units are, and cgroups, are counted by a daemon alone. Under
// systemd that has a group of its own. What has no room is a *LimitError.
func Fits(cfg *config.Config) error {
	limits, err := bpf.LimitsFor(bpf.Options{Slots: cfg.Daemon.Slots, UDPFlows: cfg.Daemon.UDPFlows})
	if err != nil {
		return err
	}
	tree, err := cfg.Tree()
	if err != nil {
		return err
	}
	s, err := Compile(cfg, tree, Membership{Self: 1}, Runtime{})
	if err != nil {
		return err
	}
	return s.Fits(limits)
}

func less(n uint32) uint64 {
	if n == 0 {
		return 0
	}
	return uint64(n) - 1
}

// key is the edge as its table's key reads.
func (e Edge) key() string {
	if e.Pattern {
		return bpf.PatternKey{Node: e.Node, Ordinal: e.Ordinal}.String()
	}
	return bpf.ExpectKey{Node: e.Node, Name: e.Name}.String()
}

// count fills need.
func (s *State) count() {
	n := need{groups: uint64(len(s.Groups)) + 1, cgroups: uint64(len(s.Cgroups))}
	if s.Policy != nil {
		n.policy = s.Policy.lines
	}
	for _, v := range s.VIPs {
		n.frontends += uint64(len(v.Frontends))
		n.cells += 1 + uint64(len(v.Views))
		n.views += uint64(len(v.Views))
		n.backends += uint64(len(v.Backends))
		n.slots += uint64(v.slotCount())
	}
	for _, e := range s.Edges {
		if e.Pattern {
			n.patterns++
		} else {
			n.expect++
		}
	}
	s.need = n
}
