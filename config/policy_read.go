package config

import (
	"cmp"
	"strings"
)

var (
	policyKeys = []string{"default", "rule"}
	ruleKeys   = []string{"from", "to", "action"}
)

// Bounds of a policy.
const (
	maxRules   = 16384
	maxTargets = 262144 // of all rules
	maxFrom    = 262144
)

type (
	policyDraft struct {
		at    span // of the scalars
		said  bool
		value RuleAction
		rules []*ruleDraft
	}
	ruleDraft struct {
		Rule
		at   span
		from []word
		to   []span
	}
)

// readPolicy adds a file's [policy]: the scalars stand in one file, rules in
// any.
func (b *builder) readPolicy(t *table) {
	p := &b.policy
	_, at := t.places("default")
	if s, _, ok := t.text("default"); ok {
		switch {
		case p.said:
			b.twice(at, "default of [policy]", p.at)
		default:
			p.at, p.said = at, true
			p.value = b.ruleDefault(at, "default"+t.in(), s)
		}
	}
	rules, _ := t.tables("rule", "[policy.rule]")
	for _, rt := range rules {
		rt.title = "[[policy.rule]]"
		if len(p.rules) == maxRules {
			b.errorf(rt.own(), "", "more than %d rules", maxRules)
			break
		}
		p.rules = append(p.rules, b.readRule(rt))
	}
	t.rest(policyKeys, nil)
}

func (b *builder) ruleDefault(at span, what, s string) RuleAction {
	switch RuleAction(s) {
	case Allow, Deny:
		return RuleAction(s)
	}
	b.errorf(at, cmp.Or(suggest(s, []string{string(Allow), string(Deny)}), "one of allow, deny"), "%s: %s is not known", what, quote(s))
	return Allow
}

func (b *builder) readRule(t *table) *ruleDraft {
	r := &ruleDraft{at: t.own()}
	if _, said := t.m["action"]; !said {
		b.errorf(r.at, `action = "deny"`, "%s has no action", t.title)
	}
	r.Action = RuleAction(t.choice("action", string(Allow), string(Allow), string(Deny), string(Audit)))

	var complete bool
	if r.from, _, complete = t.words("from"); len(r.from) == 0 && complete {
		b.errorf(r.at, `from = ["any"]`, "%s does not say from whom", t.title)
	}
	r.From = names(r.from)
	to, _, complete := t.words("to")
	if len(to) == 0 && complete {
		b.errorf(r.at, `to = ["10.0.0.0/8:5432"]`, "%s does not say where to", t.title)
	}
	for _, w := range to {
		target, refused := parseTarget(w.text)
		if refused != nil {
			b.errorf(w.at, refused.hint, "%s", refused.message)
			continue
		}
		target.Origin = w.at.position()
		r.To = append(r.To, target)
		r.to = append(r.to, w.at)
	}
	t.rest(ruleKeys, nil)
	return r
}

// checkPolicy checks every name in the rules, and bounds them.
func (b *builder) checkPolicy() {
	from, to := 0, 0
	vips := make([]string, 0, min(len(b.vips), 1000))
	for _, v := range b.vips[:min(len(b.vips), 1000)] {
		vips = append(vips, v.Name)
	}
	for _, r := range b.policy.rules {
		seen := make(map[string]bool, len(r.from))
		for _, w := range r.from {
			switch {
			case seen[w.text]:
				b.errorf(w.at, "", "group %s stands twice in from of a rule", quote(w.text))
			case w.text == AnyGroup && len(r.from) > 1:
				b.warnf(w.at, "", "any covers whoever else stands in from")
			case w.text == AnyGroup:
			case strings.Contains(w.text, "/"):
				parent, _, _ := strings.Cut(w.text, "/")
				b.errorf(w.at, "write "+quote(parent), "%s: split children have their parent's rules", quote(w.text))
			default:
				b.isGroup(w.at, w.text, "from of a rule")
			}
			seen[w.text] = true
		}
		for i, t := range r.To {
			if t.VIP == "" || b.vipByID[t.VIP] != nil || b.unread {
				continue
			}
			hint := suggest(t.VIP, vips)
			if hint == "" && b.groupByID[t.VIP] != nil {
				hint = "it is a group: rules lead to VIPs and networks"
			}
			b.errorf(r.to[i], hint, "unknown VIP %s in to of a rule", quote(t.VIP))
		}
		was := [2]int{from, to}
		from, to = from+len(r.from), to+len(r.To)
		if was[0] <= maxFrom && from > maxFrom {
			b.errorf(r.at, "", "more than %d groups in from of all rules", maxFrom)
		}
		if was[1] <= maxTargets && to > maxTargets {
			b.errorf(r.at, "", "more than %d targets in to of all rules", maxTargets)
		}
	}
}

// config turns the draft into the value.
func (p *policyDraft) config() Policy {
	out := Policy{Default: Allow}
	if p.said {
		out.Default, out.Origin = p.value, p.at.position()
	}
	for _, r := range p.rules {
		r.Origin = r.at.position()
		out.Rules = append(out.Rules, r.Rule)
	}
	return out
}

// policy renders [policy], where it says anything: the scalars, then the rules
// in their order.
func (r *renderer) policy(p *Policy) {
	if len(p.Rules) == 0 && p.Default != Deny {
		return
	}
	r.header("[policy]", p.Origin)
	r.line("default = " + tomlString(string(p.Default)))
	for i := range p.Rules {
		rule := &p.Rules[i]
		r.header("[[policy.rule]]", rule.Origin)
		r.line("from = " + tomlStrings(rule.From))
		r.line("to = [")
		for _, t := range rule.To {
			r.line("  " + tomlString(t.String()) + "," + r.from(t.Origin))
		}
		r.line("]")
		r.line("action = " + tomlString(string(rule.Action)))
	}
}
