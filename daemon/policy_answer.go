package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/lb"
)

// policyDefault is what a group gets where no rule says anything.
func policyDefault(cfg *config.Config, g *config.Group) string {
	return string(cmp.Or(g.Policy, cfg.Policy.Default, config.Allow))
}

func policySummary(cfg *config.Config, c *counted) api.PolicySummary {
	s := api.PolicySummary{Default: string(cmp.Or(cfg.Policy.Default, config.Allow)), Rules: len(cfg.Policy.Rules)}
	for _, counters := range c.calls {
		s.Denied += counters.Denied
	}
	return s
}

// denied adds to a group what policy has denied it.
func (c *counted) denied(g api.Group) api.Group {
	for key, counters := range c.calls {
		if key.group == g.Name && counters.Denied > 0 {
			g.Denied = append(g.Denied, api.Denied{VIP: key.vip, Calls: counters.Denied})
		}
	}
	slices.SortFunc(g.Denied, func(a, b api.Denied) int { return strings.Compare(a.VIP, b.VIP) })
	return g
}

// Policy is the rules that run, in the words of the configuration, with what the
// kernel has counted.
func (a answers) Policy(ctx context.Context) (*api.Policy, error) {
	v, err := a.readable(ctx)
	if err != nil {
		return nil, err
	}
	if v.source == nil {
		return nil, &api.Error{Code: api.NotFound, Text: "no configuration runs", Hint: "slicelb check"}
	}
	cfg := v.source.cfg
	out := &api.Policy{
		Default: string(cmp.Or(cfg.Policy.Default, config.Allow)),
		Groups:  []api.PolicyDefault{}, Calls: []api.Calls{}, Seen: []api.Seen{},
	}
	for i := range cfg.Groups {
		if g := &cfg.Groups[i]; g.Policy != "" && g.Policy != cfg.Policy.Default {
			out.Groups = append(out.Groups, api.PolicyDefault{Group: g.Name, Action: string(g.Policy)})
		}
	}
	out.Rules = rulesOf(cfg)
	if v.dp == nil {
		return out, nil
	}
	c, err := a.counters(v)
	if err != nil {
		return nil, err
	}
	if err := addHits(out.Rules, c.dump, v.dp); err != nil {
		return nil, err
	}
	out.Calls = callsOf(c, func(pair, api.Counters) bool { return true })
	slices.SortFunc(out.Calls, func(a, b api.Calls) int {
		return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.VIP, b.VIP))
	})
	return out, addSeen(out, c.dump, v.dp)
}

// beginAudits forgets what the audits before saw, when another configuration brings
// audits and the one that runs has none: they are others, and somebody may have
// filled the table of those.
func (d *daemon) beginAudits(next *source) {
	if d.dp.dataPath == nil || d.running == nil || audits(d.running.cfg) || !audits(next.cfg) {
		return
	}
	if err := d.dp.ForgetSeen(); err != nil {
		d.log.Warn("forget what audits have seen", "err", err)
	}
}

func audits(cfg *config.Config) bool {
	return slices.ContainsFunc(cfg.Policy.Rules, func(r config.Rule) bool { return r.Action == config.Audit })
}

// rulesOf is the rules of a configuration, in its words; nobody has counted yet.
func rulesOf(cfg *config.Config) []api.Rule {
	rules := make([]api.Rule, 0, len(cfg.Policy.Rules))
	for i := range cfg.Policy.Rules {
		r := &cfg.Policy.Rules[i]
		rule := api.Rule{From: r.From, To: []string{}, Action: string(r.Action), Decides: true, Origin: r.Origin.String()}
		for _, t := range r.To {
			rule.To = append(rule.To, t.String())
		}
		rules = append(rules, rule)
	}
	return rules
}

// addHits counts for the rules, where the kernel's policy is the one that runs.
func addHits(rules []api.Rule, d *bpf.Dump, dp dataPath) error {
	if d.Policy == nil || int(d.Policy.Rules) != len(rules) {
		return nil
	}
	hits, err := dp.RuleHits()
	if err != nil {
		return fmt.Errorf("read the rules' counters: %w", err)
	}
	decides := make([]bool, len(rules)+1)
	for _, r := range d.Policy.Rows {
		decides[r.Rule] = true
		for _, e := range r.Except {
			decides[e.Rule] = true
		}
	}
	for i := range rules {
		rules[i].Decides = decides[i+1]
		if i < len(hits) {
			rules[i].Hits = hits[i]
		}
	}
	return nil
}

func addSeen(out *api.Policy, d *bpf.Dump, dp dataPath) error {
	seen, err := dp.Seen()
	if err != nil {
		return fmt.Errorf("read what was audited: %w", err)
	}
	st, err := dp.Stats()
	if err != nil {
		return err
	}
	out.Lost = st.SeenFull
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // cannot fail for this clock
	for _, s := range seen {
		name := d.Groups[s.Group].Name
		if name == "" || name == lb.DaemonGroup {
			continue
		}
		out.Seen = append(out.Seen, api.Seen{
			Group: name, Address: s.Addr.String(), Proto: config.Proto(s.Proto).String(), Count: s.Count,
			Ago: max(0, time.Duration(now.Nano())-s.Last),
		})
	}
	slices.SortFunc(out.Seen, func(a, b api.Seen) int {
		return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.Address, b.Address), strings.Compare(a.Proto, b.Proto))
	})
	return nil
}

// under tells a caller the policy in force, and the rules that it is made of.
func (c *caller) under(d *bpf.Dump, src *source) {
	if d.Policy == nil || d.PolicyWord.Base == 0 {
		return
	}
	c.policy = d.Policy.Index()
	if src != nil && len(src.cfg.Policy.Rules) == int(d.Policy.Rules) {
		c.policyRules = src.cfg.Policy.Rules
	}
}

// explainPolicy follows a call through the policy, as slb_policy_decide() in the
// programs does; true: the call ends here.
func explainPolicy(key bpf.FrontendKey, c caller, x *api.Explanation, frontend bool, step func(look, format string, args ...any)) bool {
	if c.policy == nil {
		return false
	}
	who := prose.Foreign(c.name)
	action, rule := c.policy.Decide(c.group, key.Addr, key.Proto, frontend)
	by := "the default of " + who
	if rule != 0 {
		by, x.Rule = fmt.Sprintf("rule %d", rule), int(rule)
		if c.policyRules != nil {
			x.Origin = c.policyRules[rule-1].Origin.String()
			by += ", " + x.Origin
		}
	}
	switch action {
	case bpf.PolicyDeny:
		step("policy", "denied, by %s", by)
		x.Action, x.Reason = "deny", fmt.Sprintf("policy denies it to %s, by %s: EPERM", who, by)
		return true
	case bpf.PolicyAudit:
		step("policy", "allowed and recorded, by %s", by)
	case bpf.PolicyAllow:
		step("policy", "allowed, by %s", by)
	default:
		step("policy", "no rule names the address")
	}
	return false
}
