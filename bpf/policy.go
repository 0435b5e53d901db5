package bpf

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// PolicyAction is what a rule says (enum slb_policy_action).
type PolicyAction uint8

const (
	PolicyDefault PolicyAction = iota // no rule says anything: the group's default
	PolicyAllow
	PolicyDeny  // EPERM
	PolicyAudit // allowed, and recorded
)

// Policy is everything that decides, before translation, whether a group may
// call an address. It is constant once it was written; package lb makes it.
type Policy struct {
	Classes  []PolicyClass // by index of group; a group beyond them is the host's
	Networks []PolicyNetwork
	Tables   [][]PolicyPorts // Networks name them by position
	Rows     []PolicyRow     // tables name them by position + 1
	Rules    uint32          // numbers in it are at most so
}

// PolicyClass is what groups share whom the rules treat alike.
type PolicyClass struct {
	Class uint16 // 0: no rule concerns it, it may call everything
	Deny  bool   // its default
}

// PolicyNetwork is an address, or some, that something is said of. Of several
// that hold an address, the longest decides; so some stand here only for the
// search to find a longer one, with what their own surroundings say.
type PolicyNetwork struct {
	Prefix netip.Prefix // never v4-mapped
	Table  uint32
}

// PolicyPorts is a range of ports: from Low to below the next of its table, whose
// first begins at 0. A row of 0 is named by no rule.
type PolicyPorts struct {
	Low      uint16
	TCP, UDP uint32
}

// PolicyRow is what the rules say of one range of ports of one network.
type PolicyRow struct {
	Action PolicyAction // of every class without an exception
	Rule   uint32       // that says so, from 1; 0 with PolicyDefault
	Except []PolicyException
}

// PolicyException is what a class gets instead.
type PolicyException struct {
	Class  uint16
	Action PolicyAction
	Rule   uint32
}

// PolicyWord puts a policy in force: stored at once, read once by each call.
type PolicyWord struct {
	Base     uint32 // line; 0 = there is no policy
	Deny     bool   // some group's default denies
	HostDeny bool   // the host's does
	Bank     uint8  // 0 or 1: which half of the rules' counts grows
	Gen      uint16
}

// Rows that a port has, for TCP or UDP.
func (p PolicyPorts) row(proto uint8) uint32 {
	if proto == UDP {
		return p.UDP
	}
	return p.TCP
}

// PolicyIndex answers as the programs do (policy.h).
type PolicyIndex struct {
	policy   *Policy
	networks map[netip.Prefix]uint32
	lengths  map[int][]int // by the addresses' bits: those that occur, falling
}

// Index prepares p, which must not change any more, for Decide.
func (p *Policy) Index() *PolicyIndex {
	x := &PolicyIndex{policy: p, networks: make(map[netip.Prefix]uint32, len(p.Networks)), lengths: map[int][]int{}}
	for _, n := range p.Networks {
		x.networks[n.Prefix] = n.Table
		family := n.Prefix.Addr().BitLen()
		if !slices.Contains(x.lengths[family], n.Prefix.Bits()) {
			x.lengths[family] = append(x.lengths[family], n.Prefix.Bits())
		}
	}
	for _, lengths := range x.lengths {
		slices.SortFunc(lengths, func(a, b int) int { return b - a })
	}
	return x
}

// Decide is what a call of a group gets: the action, never PolicyDefault unless
// the policy does not concern the call, and the rule that says so, or 0 where
// none does. addr is unmapped.
func (x *PolicyIndex) Decide(group uint32, addr netip.AddrPort, proto uint8, frontend bool) (PolicyAction, uint32) {
	p := x.policy
	row := x.row(addr, proto)
	if row == 0 && !frontend {
		return PolicyDefault, 0
	}
	if group >= uint32(len(p.Classes)) {
		group = 0
	}
	if group >= uint32(len(p.Classes)) {
		return PolicyAllow, 0
	}
	class := p.Classes[group]
	if class.Class == 0 {
		return PolicyAllow, 0
	}
	if row != 0 {
		r := p.Rows[row-1]
		for _, e := range r.Except {
			if e.Class == class.Class {
				return e.Action, e.Rule
			}
		}
		if r.Action != PolicyDefault {
			return r.Action, r.Rule
		}
	}
	if class.Deny {
		return PolicyDeny, 0
	}
	return PolicyAllow, 0
}

func (x *PolicyIndex) row(addr netip.AddrPort, proto uint8) uint32 {
	for _, n := range x.lengths[addr.Addr().BitLen()] {
		prefix, err := addr.Addr().Prefix(n)
		if err != nil {
			return 0
		}
		table, ok := x.networks[prefix]
		if !ok {
			continue
		}
		row := uint32(0)
		for _, ports := range x.policy.Tables[table] {
			if ports.Low <= addr.Port() {
				row = ports.row(proto)
			}
		}
		return row
	}
	return 0
}

func (a PolicyAction) String() string {
	switch a {
	case PolicyDefault:
		return "default"
	case PolicyAllow:
		return "allow"
	case PolicyDeny:
		return "deny"
	case PolicyAudit:
		return "audit"
	}
	return "action-" + strconv.Itoa(int(a))
}

func (w PolicyWord) String() string {
	s := "none"
	if w.Base != 0 {
		s = fmt.Sprintf("base=%d", w.Base)
		if w.Deny {
			s += " deny"
		}
		if w.HostDeny {
			s += " host-deny"
		}
		s += fmt.Sprintf(" bank=%d", w.Bank)
	}
	return s + fmt.Sprintf(" gen=%d", w.Gen)
}

func (w SetPolicyTable) String() string {
	return fmt.Sprintf("set policy-table %d lines=%d networks=%d tables=%d rows=%d rules=%d bank=%d",
		w.Base, w.Lines, len(w.Policy.Networks), len(w.Policy.Tables), len(w.Policy.Rows), w.Policy.Rules, w.Bank)
}

func (w SetPolicy) String() string { return "set policy " + w.Word.String() }
