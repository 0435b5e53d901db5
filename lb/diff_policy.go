package lb

import (
	"slices"
	"strings"

	"github.com/slicelb/slicelb/bpf"
)

// policyHave is what is known of the policy in the maps.
type policyHave struct {
	word   bpf.PolicyWord
	tables map[uint32]policyTable // by base: in force, or free after a barrier

	// What was found equal to, or made equal to, a State.
	done   bool
	of     *Policy
	groups []Group
}

type policyTable struct {
	lines   uint32
	sum     uint64
	classes []bpf.PolicyClass
}

// rulesOf reports whether the rules and defaults in force are those of want, by classes:
// whatever the groups are that these stand for.
func (h *policyHave) rulesOf(want *Policy) bool {
	have, ok := h.tables[h.word.Base]
	return ok && have.sum == want.sum && h.word.Deny == want.deny && h.word.HostDeny == want.host
}

// class is what the programs find for a group's index.
func (t policyTable) class(index uint32) bpf.PolicyClass {
	if index >= uint32(len(t.classes)) {
		index = 0
	}
	if index >= uint32(len(t.classes)) {
		return bpf.PolicyClass{}
	}
	return t.classes[index]
}

// readPolicy takes over what a dump says. Of a policy that cannot be read only
// the first line is taken for used: nothing decides by it.
func (h *Have) readPolicy(d *bpf.Dump) {
	h.policy = policyHave{word: d.PolicyWord, tables: map[uint32]policyTable{}}
	used := []span{{0, 1}}
	if base := d.PolicyWord.Base; base != 0 {
		t := policyTable{lines: max(d.PolicyLines, 1), sum: d.PolicySum}
		if d.Policy != nil {
			t.classes = d.Policy.Classes
		}
		h.policy.tables[base] = t
		used = append(used, span{base, t.lines})
	}
	h.freePolicy = newSpace(h.limits.PolicyLines, used)
}

func (h *Have) setPolicyTable(w bpf.SetPolicyTable) {
	h.freePolicy.take(w.Base, w.Lines)
	_, sum, _ := w.Policy.Lines() // it was encoded to be written
	h.policy.tables[w.Base] = policyTable{lines: w.Lines, sum: sum, classes: w.Policy.Classes}
}

func (h *Have) setPolicy(w bpf.SetPolicy) {
	if old := h.policy.word.Base; old != 0 && old != w.Word.Base {
		h.limbo = append(h.limbo, limbo{limboPolicy, old})
	}
	h.policy.word = w.Word
}

// planPolicy puts another policy in force where it differs: before any cgroup or
// VIP changes, at a position of the plan's writes. From that one store on every
// caller has the new policy, of its old group until its cgroup's word changes. So
// the table knows groups that go, and transits: they have the policy of the group
// that their cgroups go to.
//
// Frontends that go are deleted first, so that their VIP never answers under a
// policy that does not know them.
func (p *planner) planPolicy(at int, words []word, changes []*change, owner map[bpf.FrontendKey]*change) error {
	h, want := p.have, p.want.Policy
	if h.policy.done && h.policy.of == want && sameSlice(h.policy.groups, p.want.Groups) &&
		len(p.added)+len(p.moves.transit) == 0 {
		return nil
	}
	next := bpf.PolicyWord{Gen: h.policy.word.Gen + 1}
	var writes []bpf.Write
	if want == nil {
		if h.policy.word.Base == 0 {
			return nil
		}
	} else {
		classes := p.policyClasses(words)
		if p.samePolicy(want, classes) {
			return nil
		}
		table := want.table
		table.Classes = listed(classes, want.classes[HostGroup])
		lines, _, err := table.Lines()
		if err != nil {
			return err
		}
		free := h.freePolicy.clone()
		base, ok := free.fit(lines)
		if !ok {
			return p.full("policy_lines", h.limits.PolicyLines, uint64(lines), want.key())
		}
		next.Base, next.Deny, next.HostDeny, next.Bank = base, want.deny, want.host, h.policy.word.Bank
		if !p.sameRules(want) {
			next.Bank ^= 1 // their counts begin at zero
		}
		writes = append(writes, bpf.SetPolicyTable{Base: base, Lines: lines, Bank: next.Bank, Policy: &table})
	}
	writes = append(writes, p.deserted(changes, owner)...)
	writes = append(writes, bpf.SetPolicy{Word: next})
	p.plan.Writes = slices.Insert(p.plan.Writes, at, writes...)
	for i := range p.plan.Barriers {
		p.plan.Barriers[i] += len(writes)
	}
	return nil
}

// samePolicy reports whether the policy in force is want, for all groups that
// matter.
func (p *planner) samePolicy(want *Policy, classes map[uint32]bpf.PolicyClass) bool {
	word := p.have.policy.word
	have := p.have.policy.tables[word.Base]
	if !p.have.policy.rulesOf(want) || len(have.classes) == 0 {
		return false
	}
	for index, class := range classes {
		if have.class(index) != class {
			return false
		}
	}
	return true
}

// sameRules reports whether the rules in force are those of want, about the same groups.
// None is about the daemon's, which comes with a restart, nor about those that go.
func (p *planner) sameRules(want *Policy) bool {
	if !p.have.policy.rulesOf(want) {
		return false
	}
	have := p.have.policy.tables[p.have.policy.word.Base]
	for name, index := range p.groups {
		if p.added[index] {
			index = 0 // it was part of the host
		}
		if name != DaemonGroup && have.class(index) != want.classes[name] {
			return false
		}
	}
	return true
}

// policyClasses are the classes by group index, of all groups that matter.
func (p *planner) policyClasses(words []word) map[uint32]bpf.PolicyClass {
	classes := p.want.Policy.classes
	byIndex := map[uint32]bpf.PolicyClass{}
	names := make(map[uint32]string, len(p.groups))
	for name, index := range p.groups {
		byIndex[index], names[index] = classes[name], name
	}
	for m, index := range p.moves.transit {
		byIndex[index] = classes[names[m.to]]
	}
	goes := map[uint32]string{}
	for _, w := range words {
		if _, stays := names[w.old.Group]; w.had && !stays {
			if to := names[w.want.Group]; goes[w.old.Group] == "" || strings.Compare(to, goes[w.old.Group]) < 0 {
				goes[w.old.Group] = to
			}
		}
	}
	for index, to := range goes {
		if _, transit := byIndex[index]; !transit {
			byIndex[index] = classes[to]
		}
	}
	return byIndex
}

// listed puts classes into their places; those in between are the host's.
func listed(classes map[uint32]bpf.PolicyClass, host bpf.PolicyClass) []bpf.PolicyClass {
	last := uint32(0)
	for index := range classes {
		last = max(last, index)
	}
	out := make([]bpf.PolicyClass, last+1)
	for i := range out {
		out[i] = host
	}
	for index, class := range classes {
		out[index] = class
	}
	return out
}

// deserted deletes the frontends that no VIP has any more.
func (p *planner) deserted(changes []*change, owner map[bpf.FrontendKey]*change) []bpf.Write {
	var keys []bpf.FrontendKey
	for _, c := range changes {
		if c.have == nil {
			continue
		}
		for k := range c.have.frontends {
			if owner[k] == nil {
				keys = append(keys, k)
			}
		}
	}
	slices.SortFunc(keys, compareFrontends)
	out := make([]bpf.Write, len(keys))
	for i, k := range keys {
		out[i] = bpf.DelFrontend{Key: k}
	}
	return out
}
