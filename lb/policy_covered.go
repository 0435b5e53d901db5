package lb

import (
	"slices"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
)

// Covered is a rule that decides nothing: of whatever it names, for whomever, rules
// before it decide. Rules are named by position.
type Covered struct {
	Rule int
	By   []int // rising; a few, where there are many
}

// coveredBy is how many rules are looked for that decide in place of one.
const coveredBy = 4

// CoveredRules lists the rules of a policy that decide nothing, in their order. A
// rule about what is behind a VIP is none of them where that is known to a daemon
// alone: backends that are units.
func CoveredRules(cfg *config.Config) ([]Covered, error) {
	c := newPolicyCompiler(cfg)
	policy, err := c.compile()
	if err != nil || policy == nil {
		return nil, err
	}
	units := vipsOfUnits(cfg)
	known := func(r *config.Rule) bool {
		return !slices.ContainsFunc(r.To, func(t config.Target) bool { return t.Backends && units[t.VIP] })
	}
	var out []Covered
	at := map[int]int{} // of a rule in out
	for i := range cfg.Policy.Rules {
		if !policy.Decides(i) && known(&cfg.Policy.Rules[i]) {
			at[i] = len(out)
			out = append(out, Covered{Rule: i})
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	// Each rule is looked up in its own networks: what these hold has other rules in
	// addition, at most.
	for _, network := range policy.table.Networks {
		for _, a := range c.own[network.Prefix] {
			if i, covered := at[a.rule]; covered {
				c.deciders(&out[i], &a, policy.table.Tables[network.Table])
			}
		}
	}
	for i := range out {
		slices.Sort(out[i].By)
	}
	return out, nil
}

// deciders notes what decides in place of an atom's rule.
func (c *policyCompiler) deciders(of *Covered, a *atom, table []bpf.PolicyPorts) {
	for i, ports := range table {
		if ports.Low > a.high {
			break
		}
		if i+1 < len(table) && table[i+1].Low <= a.low {
			continue
		}
		if a.tcp {
			c.decidersIn(of, ports.TCP)
		}
		if a.udp {
			c.decidersIn(of, ports.UDP)
		}
		if len(of.By) >= coveredBy {
			return
		}
	}
}

func (c *policyCompiler) decidersIn(of *Covered, row uint32) {
	if row == 0 {
		return
	}
	r, rule := &c.out.table.Rows[row-1], &c.rules[of.Rule]
	note := func(number uint32) {
		if by := int(number) - 1; by >= 0 && by < of.Rule && len(of.By) < coveredBy && !slices.Contains(of.By, by) {
			of.By = append(of.By, by)
		}
	}
	if rule.any {
		note(r.Rule)
		for _, e := range r.Except {
			note(e.Rule)
		}
		return
	}
	for _, class := range rule.classes {
		n, ok := slices.BinarySearchFunc(r.Except, class, func(e bpf.PolicyException, class uint16) int { return int(e.Class) - int(class) })
		if ok {
			note(r.Except[n].Rule)
		} else {
			note(r.Rule)
		}
	}
}

// vipsOfUnits are the VIPs that have backends which are units, in a view or beside.
func vipsOfUnits(cfg *config.Config) map[string]bool {
	out := map[string]bool{}
	for i := range cfg.VIPs {
		v := &cfg.VIPs[i]
		out[v.Name] = v.HasUnits()
	}
	return out
}
