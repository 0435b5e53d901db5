package lb

import (
	"fmt"
	"slices"
	"strings"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/prose"
)

// policy writes the policy in force: the classes of the groups that have a name,
// then what the rules say of each network, ports by ports. What is named by no
// rule is left out.
func (p *dumper) policy() {
	word, table := p.d.PolicyWord, p.d.Policy
	if word.Base == 0 {
		return
	}
	if table == nil {
		p.line("policy that cannot be read [%s]", word)
		return
	}
	p.line("policy of %s [%s, %d lines]", prose.Plural(int(table.Rules), "rule"), word, p.d.PolicyLines)
	members := map[bpf.PolicyClass][]string{}
	have := policyTable{classes: table.Classes}
	for i, g := range p.d.Groups {
		class := have.class(i)
		members[class] = append(members[class], g.Name)
	}
	for class, names := range members {
		slices.Sort(names)
		members[class] = names
	}
	for _, class := range sortedBy(members, func(a, b bpf.PolicyClass) int { return int(a.Class) - int(b.Class) }) {
		switch {
		case class.Class == 0:
			p.line("  class 0 exempt: %s", strings.Join(members[class], " "))
		case class.Deny:
			p.line("  class %d default deny: %s", class.Class, strings.Join(members[class], " "))
		default:
			p.line("  class %d default allow: %s", class.Class, strings.Join(members[class], " "))
		}
	}
	for _, n := range table.Networks {
		ports := table.Tables[n.Table]
		for i, r := range ports {
			high := 65535
			if i+1 < len(ports) {
				high = int(ports[i+1].Low) - 1
			}
			for _, row := range []struct {
				proto string
				row   uint32
			}{{"tcp", r.TCP}, {"udp", r.UDP}} {
				if row.row != 0 {
					p.line("  %s:%d-%d/%s: %s", n.Prefix, r.Low, high, row.proto, policyRowText(&table.Rows[row.row-1]))
				}
			}
		}
	}
}

func policyRowText(r *bpf.PolicyRow) string {
	var parts []string
	for _, e := range r.Except {
		parts = append(parts, fmt.Sprintf("class %d %s by rule %d", e.Class, e.Action, e.Rule))
	}
	rest := "the default"
	if r.Action != bpf.PolicyDefault {
		rest = fmt.Sprintf("%s by rule %d", r.Action, r.Rule)
	}
	if parts == nil {
		return rest
	}
	return strings.Join(parts, ", ") + ", else " + rest
}
