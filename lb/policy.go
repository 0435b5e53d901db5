package lb

import (
	"net/netip"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/prose"
)

// Policy is the rules, resolved: what the kernel is to look up. It is immutable.
type Policy struct {
	table   bpf.Policy // without Classes, which go by the groups' indexes
	classes map[string]bpf.PolicyClass
	deny    bool // some group's default denies
	host    bool // the host's does
	lines   uint64
	sum     uint64 // see bpf.Policy.Lines
	decides []bool
}

// Decides reports whether there is a call that the rule, numbered from 0 in load
// order, decides: those before it may leave it none. It is never wrong about a rule
// that it denies; see CoveredRules.
func (p *Policy) Decides(rule int) bool { return p != nil && rule < len(p.decides) && p.decides[rule] }

// key names the policy in errors.
func (p *Policy) key() string {
	return prose.Plural(int(p.table.Rules), "rule") + " of [policy], resolved"
}

// Judgement is what the rules say of one call.
type Judgement struct {
	// Action is bpf.PolicyDefault where policy does not concern the call, which is
	// to no VIP and to no network that a rule names.
	Action bpf.PolicyAction
	Rule   int    // that decides, by its position; -1: none, it is a default
	VIP    string // whose frontend the address is
}

// Judge reads the rules in their order, as they are written: it is what Compile
// must come to.
func Judge(cfg *config.Config, group string, addr netip.AddrPort, proto config.Proto) Judgement {
	j := Judgement{Rule: -1}
	frontend := config.Frontend{Addr: addr, Proto: proto}
	var vip *config.VIP
	for i := range cfg.VIPs {
		for _, f := range cfg.VIPs[i].Frontends {
			if f.Addr == frontend.Addr && f.Proto == frontend.Proto {
				vip = &cfg.VIPs[i]
				j.VIP = vip.Name
			}
		}
	}
	named := vip != nil
	for i, r := range cfg.Policy.Rules {
		if !names(cfg, &r, vip, addr, proto) {
			continue
		}
		named = true
		for _, from := range r.From {
			if group != DaemonGroup && (from == config.AnyGroup || from == group) {
				j.Action, j.Rule = actionOf(r.Action), i
				return j
			}
		}
	}
	switch {
	case !named:
	case group != DaemonGroup && defaultOf(cfg, group) == config.Deny:
		j.Action = bpf.PolicyDeny
	default:
		j.Action = bpf.PolicyAllow
	}
	return j
}

// names reports whether a rule's targets hold what is called, which is a
// frontend of vip where that is not nil.
func names(cfg *config.Config, r *config.Rule, vip *config.VIP, addr netip.AddrPort, proto config.Proto) bool {
	for _, t := range r.To {
		switch {
		case t.VIP == "":
			if t.Covers(addr, proto) {
				return true
			}
		case vip != nil && vip.Name == t.VIP:
			return true
		case t.Backends:
			for i := range cfg.VIPs {
				if v := &cfg.VIPs[i]; v.Name == t.VIP && hasBackend(v, addr, proto) {
					return true
				}
			}
		}
	}
	return false
}

// hasBackend reports whether a VIP has a backend of this address for a protocol.
func hasBackend(v *config.VIP, addr netip.AddrPort, proto config.Proto) bool {
	for _, b := range backendsOf(v) {
		if b.Addr == addr && serves(v, b, proto) {
			return true
		}
	}
	return false
}

// serves reports whether v has a frontend of the backend's family and this protocol.
func serves(v *config.VIP, b config.Backend, proto config.Proto) bool {
	for _, f := range v.Frontends {
		if f.Proto == proto && f.Addr.Addr().Is4() == b.Addr.Addr().Is4() {
			return true
		}
	}
	return false
}

// backendsOf are a VIP's, those of its views too.
func backendsOf(v *config.VIP) []config.Backend {
	out := v.Backends[:len(v.Backends):len(v.Backends)]
	for i := range v.For {
		out = append(out, v.For[i].Backends...)
	}
	return out
}

// defaultOf is what a group gets where no rule says anything.
func defaultOf(cfg *config.Config, group string) config.RuleAction {
	for i := range cfg.Groups {
		if g := &cfg.Groups[i]; g.Name == group && g.Policy != "" {
			return g.Policy
		}
	}
	return cfg.Policy.Default
}

func actionOf(a config.RuleAction) bpf.PolicyAction {
	switch a {
	case config.Deny:
		return bpf.PolicyDeny
	case config.Audit:
		return bpf.PolicyAudit
	}
	return bpf.PolicyAllow
}
