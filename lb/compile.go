package lb

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// Compile says what the maps should hold for a configuration that was
// validated, the cgroups that exist, and what was decided at run time. It is
// pure. An error names a group that is not configured.
func Compile(cfg *config.Config, tree *anchor.Tree, m Membership, rt Runtime) (*State, error) {
	s := &State{cfg: cfg, verdicts: rt.Verdicts}
	known := map[string]bool{HostGroup: true}
	for _, g := range cfg.Groups {
		if known[g.Name] {
			return nil, fmt.Errorf("group %s stands twice", g.Name)
		}
		known[g.Name] = true
		deny := cmp.Or(g.Policy, cfg.Policy.Default) == config.Deny
		s.Groups = append(s.Groups, Group{Name: g.Name, Translate: g.Translate, Deny: deny, Strict: g.Strict, Children: g.SplitMetrics})
	}
	if m.Self != 0 {
		known[DaemonGroup] = true
		s.Groups = append(s.Groups, Group{Name: DaemonGroup})
	}
	slices.SortFunc(s.Groups, func(a, b Group) int { return cmp.Compare(a.Name, b.Name) })

	for i := range cfg.VIPs {
		v := &cfg.VIPs[i]
		for _, family := range []uint8{4, 6} {
			c := vipCompiler{v: v, family: family, rt: rt}
			vip, err := c.compile(known)
			if err != nil {
				return nil, fmt.Errorf("vip %s: %w", v.Name, err)
			}
			if vip != nil {
				s.VIPs = append(s.VIPs, vip)
			}
		}
	}
	slices.SortFunc(s.VIPs, func(a, b *VIP) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Family, b.Family))
	})

	var err error
	if s.Policy, err = compilePolicy(cfg); err != nil {
		return nil, err
	}
	s.join(m)
	if tree != nil {
		for _, e := range tree.Edges() {
			edge := Edge{
				Node: uint32(e.From),
				Rule: Rule{Group: e.To.Group, Node: uint32(e.To.Node), Split: e.To.Split},
			}
			if edge.Rule.Group != "" && !known[edge.Rule.Group] {
				return nil, fmt.Errorf("anchor tree names group %q, which is not configured", e.To.Group)
			}
			switch e.Kind {
			case anchor.Literal:
				edge.Name = e.Name
			case anchor.Pattern:
				edge.Pattern, edge.Ordinal = true, uint32(e.Ordinal)
				edge.Prefix, edge.Suffix = e.Prefix, e.Suffix
			case anchor.Rest:
			}
			s.Edges = append(s.Edges, edge)
		}
	}
	slices.SortFunc(s.Edges, func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Name, b.Name),
			cmp.Compare(btoi(a.Pattern), btoi(b.Pattern)), cmp.Compare(a.Ordinal, b.Ordinal))
	})
	s.count()
	return s, nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func compareFrontends(a, b bpf.FrontendKey) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Proto, b.Proto))
}
