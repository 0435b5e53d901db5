package lbtest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/slicelb/slicelb/bpf"
)

// Answer is what a call gets.
type Answer struct {
	Denied   bool // by policy
	Refused  bool // its port is no frontend (reject_unknown_ports)
	Action   bpf.Action
	Backends map[netip.AddrPort]int // slots of each; nil unless Action is Balance

	Algorithm bpf.Algorithm
	Affinity  uint32
}

// Untouched is the answer to a call that is not to a frontend, or from a group
// whose calls are not translated.
var Untouched = Answer{}

func (a Answer) String() string {
	if a.Denied {
		return "denied"
	}
	if a.Refused {
		return "refused"
	}
	if a.Action != bpf.Balance {
		return a.Action.String()
	}
	var parts []string
	for addr, n := range a.Backends {
		parts = append(parts, fmt.Sprintf("%s x%d", addr, n))
	}
	slices.Sort(parts)
	return "balance" + bpf.Cell{Algorithm: a.Algorithm, Affinity: a.Affinity}.Steering() + " " + strings.Join(parts, ", ")
}

// Resolve is the programs' look-up (decide.h, backend.h) for a caller whose
// group has this index. An error is what no program may ever meet.
func (m *Maps) Resolve(group uint32, k bpf.FrontendKey) (Answer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := &m.d
	index, ok := d.Frontends[k]
	if !ok {
		index, ok = d.Frontends[bpf.FrontendKey{Addr: netip.AddrPortFrom(k.Addr.Addr(), 0), Proto: k.Proto}]
	}
	unknown := ok && d.FrontendRefs[index].Rest
	if action, _ := m.policies.decide(d.PolicyWord.Base, group, k, ok && !unknown); action == bpf.PolicyDeny {
		return Answer{Denied: true}, nil
	}
	if !ok {
		return Untouched, nil
	}
	ref := d.FrontendRefs[index]
	word := d.Cells[ref.Cell]
	if word.Action == bpf.None {
		return Answer{}, fmt.Errorf("frontend %s: index %d leads to cell %d, which is empty", k, index, ref.Cell)
	}
	if g := d.Groups[group]; g.Name != "" && !g.Translate {
		return Untouched, nil
	}
	if word.Selective {
		if cell, ok := d.Views[bpf.ViewKey{Cell: ref.Cell, Group: group}]; ok {
			if d.Cells[cell].Action == bpf.None {
				return Answer{}, fmt.Errorf("view of group %d leads to cell %d, which is empty", group, cell)
			}
			word = d.Cells[cell]
		}
	}
	if unknown && (word.Action == bpf.Balance || word.Action == bpf.RejectDown) {
		return Answer{Refused: true}, nil
	}
	a := Answer{Action: word.Action}
	if word.Action != bpf.Balance {
		return a, nil
	}
	a.Backends = map[netip.AddrPort]int{}
	a.Algorithm, a.Affinity = word.Algorithm, word.Affinity
	weights := map[netip.AddrPort]int{}
	for _, s := range m.slots[word.Base : word.Base+word.Count] {
		i := bpf.SlotBackend(s)
		b, c := d.Backends[i], d.BackendCells[i]
		if c.State != bpf.BackendActive || c.Gen != b.Gen {
			return a, fmt.Errorf("a slot names backend %d, which is %s", i, c)
		}
		if b.Cell != ref.Cell {
			return a, fmt.Errorf("a slot names backend %d, which belongs to cell %d, not %d", i, b.Cell, ref.Cell)
		}
		a.Backends[b.Addr]++
		weights[b.Addr] += int(bpf.SlotWeight(s))
	}
	for addr, n := range a.Backends {
		if want := n * n; word.Algorithm == bpf.LeastConnections && weights[addr] != want {
			return a, fmt.Errorf("%d slots of %s say weights of %d, not %d", n, addr, weights[addr], want)
		}
	}
	return a, nil
}

// Group is the group of a caller whose cgroups are these, innermost first.
func (m *Maps) Group(path ...uint64) uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range path {
		if r, ok := m.d.Cgroups[id]; ok && r.Group != 0 {
			return r.Group
		}
	}
	return 0
}
