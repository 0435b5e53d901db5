package bpf

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// slicelbRules is SLB_RULES of api.h, and PolicyLines SLB_POLICY_LINES: what the
// policy in force and the next one share.
const (
	slicelbRules = 16384
	PolicyLines  = 65536
)

// Writes of the policy. SetPolicyTable fills lines that no PolicyWord has named
// since the last barrier, and starts its bank's counts at zero, unless the policy in
// force counts there: then its rules are the same, and go on counting. SetPolicy puts
// it in force.
type (
	SetPolicyTable struct {
		Base   uint32
		Lines  uint32 // that it takes
		Bank   uint8
		Policy *Policy
	}
	SetPolicy struct{ Word PolicyWord }
)

func (SetPolicyTable) write() {}
func (SetPolicy) write()      {}

func (d *Datapath) setPolicyTable(w SetPolicyTable) error {
	lines, err := w.Policy.encode()
	if err != nil {
		return err
	}
	if err := place(slicelbMapPolicyLines, w.Base, len(d.policyLines)); err != nil {
		return err
	}
	if uint64(w.Base)+uint64(len(lines)) > uint64(len(d.policyLines)) {
		return &FullError{
			Table: slicelbMapPolicyLines, Limit: uint32(len(d.policyLines)),
			Key: fmt.Sprintf("%d lines at %d", len(lines), w.Base),
		}
	}
	now := decodePolicyWord(atomic.LoadUint64(d.policyWord))
	counts := now.Base != 0 && now.Bank == w.Bank
	for rule := range w.Policy.Rules {
		if counts {
			break
		}
		if err := zero[uint64](d, slicelbMapRuleHits, uint32(w.Bank)*slicelbRules+rule); err != nil {
			return err
		}
	}
	copy(d.policyLines[w.Base:], lines)
	return nil
}

func (d *Datapath) setPolicy(w SetPolicy) error {
	if w.Word.Base != 0 {
		if _, err := policyAt(d.policyLines, w.Word.Base); err != nil {
			return err
		}
	}
	atomic.StoreUint64(d.policyWord, encodePolicyWord(w.Word))
	d.sayGone() // of sockets that it denies
	return nil
}

// policyInForce is the policy's word and what it says; nil where there is none, or
// where it cannot be read: each call has its group's default then. Writers wait while
// it is copied, and no longer.
func (d *Datapath) policyInForce() (uint64, *PolicyIndex) {
	word, lines := d.copyPolicy()
	if lines == nil || policyIsWhole(lines) != nil {
		return word, nil
	}
	return word, decodePolicy(lines).Index()
}

// copyPolicy is the policy's word and its lines; nil: there are none.
func (d *Datapath) copyPolicy() (uint64, []policyLine) {
	d.write.Lock()
	defer d.write.Unlock()
	word := atomic.LoadUint64(d.policyWord)
	base := decodePolicyWord(word).Base
	if base == 0 {
		return word, nil
	}
	lines, err := policyLinesAt(d.policyLines, base)
	if err != nil {
		return word, nil
	}
	return word, slices.Clone(lines)
}

// RuleHits is how often each rule of the policy in force has decided, from the
// first on.
func (d *Datapath) RuleHits() ([]uint64, error) {
	if err := d.acquire(); err != nil {
		return nil, err
	}
	defer d.release()
	word := decodePolicyWord(atomic.LoadUint64(d.policyWord))
	if word.Base == 0 || uint64(word.Base) >= uint64(len(d.policyLines)) {
		return nil, nil
	}
	rules := min(uint32(d.policyLines[word.Base].W[policySize]>>32), slicelbRules)
	out := make([]uint64, rules)
	for i := range out {
		var perCPU []uint64
		if err := d.maps[slicelbMapRuleHits].Lookup(uint32(word.Bank)*slicelbRules+uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read %s: %w", slicelbMapRuleHits, err)
		}
		for _, n := range perCPU {
			out[i] += n
		}
	}
	return out, nil
}
