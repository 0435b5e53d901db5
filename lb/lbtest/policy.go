package lbtest

import (
	"fmt"
	"maps"

	"github.com/slicelb/slicelb/bpf"
)

// policies are what policy_lines holds.
type policies struct {
	at    map[uint32]policy // by base
	index map[uint32]*bpf.PolicyIndex
	named map[uint32]bool // since the last barrier
}

type policy struct {
	lines uint32
	sum   uint64
	table *bpf.Policy
}

func (p *policies) clone() policies {
	return policies{at: maps.Clone(p.at), index: maps.Clone(p.index), named: maps.Clone(p.named)}
}

func (p *policies) pass(base uint32) { p.named = map[uint32]bool{base: true} }

// decide is policy_decide of policy.h.
func (p *policies) decide(base, group uint32, k bpf.FrontendKey, frontend bool) (bpf.PolicyAction, uint32) {
	if base == 0 {
		return bpf.PolicyDefault, 0
	}
	if p.index == nil {
		p.index = map[uint32]*bpf.PolicyIndex{}
	}
	if p.index[base] == nil {
		p.index[base] = p.at[base].table.Index()
	}
	return p.index[base].Decide(group, k.Addr, k.Proto, frontend)
}

func (m *Maps) setPolicyTable(w bpf.SetPolicyTable) error {
	lines, sum, err := w.Policy.Lines()
	switch {
	case err != nil:
		return err
	case w.Base == 0 || lines != w.Lines:
		return fmt.Errorf("policy of %d lines at %d", lines, w.Base)
	case uint64(w.Base)+uint64(lines) > uint64(m.limits.PolicyLines):
		return &bpf.FullError{Table: "policy_lines", Limit: m.limits.PolicyLines, Key: fmt.Sprintf("%d lines at %d", lines, w.Base)}
	}
	for base := range m.policies.named {
		if p, ok := m.policies.at[base]; ok && base < w.Base+lines && w.Base < base+p.lines {
			return unsafe("the policy at %d is named, or was", base)
		}
	}
	if m.policies.at == nil {
		m.policies.at = map[uint32]policy{}
	}
	m.policies.at[w.Base] = policy{lines, sum, w.Policy}
	delete(m.policies.index, w.Base)
	return nil
}

func (m *Maps) setPolicy(w bpf.SetPolicy) error {
	p := m.policies.at[w.Word.Base]
	if w.Word.Base != 0 && p.table == nil {
		return unsafe("no policy at %d", w.Word.Base)
	}
	m.d.PolicyWord, m.d.Policy, m.d.PolicyLines, m.d.PolicySum = w.Word, p.table, p.lines, p.sum
	m.policies.named[w.Word.Base] = true
	return nil
}

// Policy is what the policy says of a call by a group's index.
func (m *Maps) Policy(group uint32, k bpf.FrontendKey) (bpf.PolicyAction, uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, frontend := m.d.Frontends[k]
	return m.policies.decide(m.d.PolicyWord.Base, group, k, frontend)
}
