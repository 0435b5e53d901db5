package bpf

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

const (
	policyWordDeny     = 1 << 32
	policyWordHostDeny = 1 << 33
	policyWordBank     = 34
	policyWordGen      = 48
)

func encodePolicyWord(w PolicyWord) uint64 {
	out := uint64(w.Base) | uint64(w.Bank&1)<<policyWordBank | uint64(w.Gen)<<policyWordGen
	if w.Deny {
		out |= policyWordDeny
	}
	if w.HostDeny {
		out |= policyWordHostDeny
	}
	return out
}

func decodePolicyWord(w uint64) PolicyWord {
	return PolicyWord{
		Base: uint32(w), Deny: w&policyWordDeny != 0, HostDeny: w&policyWordHostDeny != 0,
		Bank: uint8(w >> policyWordBank & 1), Gen: uint16(w >> policyWordGen),
	}
}

// policyAt is the lines of the policy that begins at base; an error where they
// are not what was written.
func policyAt(all []policyLine, base uint32) ([]policyLine, error) {
	lines, err := policyLinesAt(all, base)
	if err != nil {
		return nil, err
	}
	return lines, policyIsWhole(lines)
}

// policyLinesAt is policyAt without a look at what the lines say.
func policyLinesAt(all []policyLine, base uint32) ([]policyLine, error) {
	if uint64(base) >= uint64(len(all)) {
		return nil, fmt.Errorf("policy at line %d of %d", base, len(all))
	}
	lines := all[base:]
	size := uint64(uint32(lines[0].W[policySize]))
	if size < policyData || size > uint64(len(lines)) {
		return nil, fmt.Errorf("policy of %d lines at line %d of %d", size, base, len(all))
	}
	return lines[:size], nil
}

func policyIsWhole(lines []policyLine) error {
	if sum := policyContent(lines); sum != lines[0].W[policySum] {
		return fmt.Errorf("policy of %d lines: its sum is %016x, not %016x", len(lines), sum, lines[0].W[policySum])
	}
	return nil
}

// decodePolicy reads back what encode wrote, in a canonical order: networks by
// prefix, exceptions by class.
func decodePolicy(lines []policyLine) *Policy {
	img := &policyImage{lines: lines}
	head := &lines[0].W
	p := &Policy{Rules: uint32(head[policySize] >> 32)}

	first, n := halves(head[policyClasses])
	for i := range n {
		c := *img.word(first, i/4) >> (i % 4 * 16)
		p.Classes = append(p.Classes, PolicyClass{Class: uint16(c & PolicyMaxClass), Deny: c&policyDeny != 0})
	}
	first, n = halves(head[policyRows])
	for i := range n {
		r := *img.word(first, (i+1)/2) >> ((i + 1) % 2 * 32)
		p.Rows = append(p.Rows, PolicyRow{Action: PolicyAction(r & 3), Rule: uint32(r) >> 8})
	}
	for _, w := range img.entries(head[policyExcept]) {
		for _, w := range w.W {
			if w != 0 {
				row := &p.Rows[w&policyMaxRow-1]
				row.Except = append(row.Except, PolicyException{uint16(w >> 24), PolicyAction(w >> 40 & 3), uint32(w >> 42)})
			}
		}
	}
	for i := range p.Rows {
		slices.SortFunc(p.Rows[i].Except, func(a, b PolicyException) int { return cmp.Compare(a.Class, b.Class) })
	}

	tables := map[uint32]bool{}
	network := func(prefix netip.Prefix, table uint32) {
		p.Networks = append(p.Networks, PolicyNetwork{prefix, table})
		tables[table] = true
	}
	for _, l := range img.entries(head[policyV4]) {
		for _, w := range l.W {
			if w != 0 {
				var a [4]byte
				binary.BigEndian.PutUint32(a[:], uint32(w))
				network(netip.PrefixFrom(netip.AddrFrom4(a), int(w>>32&0x3f)-1), uint32(w>>38))
			}
		}
	}
	for _, l := range img.entries(head[policyV6]) {
		for _, e := range [][]uint64{l.W[0:3], l.W[3:6]} {
			if e[2] != 0 {
				var a [16]byte
				binary.BigEndian.PutUint64(a[:8], e[0])
				binary.BigEndian.PutUint64(a[8:], e[1])
				network(netip.PrefixFrom(netip.AddrFrom16(a), int(e[2]&0xff)-1), uint32(e[2]>>8))
			}
		}
	}
	p.tables(img, tables)
	slices.SortFunc(p.Networks, func(a, b PolicyNetwork) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return p
}

// tables reads the tables at these words, which Networks name until then.
func (p *Policy) tables(img *policyImage, at map[uint32]bool) {
	position := map[uint32]uint32{}
	var words []uint32
	for word := range at {
		words = append(words, word)
	}
	slices.Sort(words)
	for i, word := range words {
		position[word] = uint32(i)
		var t []PolicyPorts
		for j := range uint32(*img.word(0, word)) {
			w := *img.word(0, word+1+j)
			t = append(t, PolicyPorts{uint16(w), uint32(w >> 16 & policyMaxRow), uint32(w >> 40)})
		}
		p.Tables = append(p.Tables, t)
	}
	for i := range p.Networks {
		p.Networks[i].Table = position[p.Networks[i].Table]
	}
}

// entries are the lines of a hash.
func (i *policyImage) entries(hash uint64) []policyLine {
	first := uint32(hash & 0xffffff)
	return i.lines[first : first+uint32(hash>>24&0xffffff)+1]
}
