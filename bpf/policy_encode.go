package bpf

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
)

// How a policy lies in policy_lines: api.h's macros again.

type policyLine = slicelbSlbPolicyLine

const (
	policyLengths4 = 1
	policyLengths6 = 2
	policyNames4   = 8
	policyNames6   = 136
	policyData     = 264

	policySum     = int(slicelbSlbPolicyHeadSLB_POLICY_SUM)
	policyV4      = int(slicelbSlbPolicyHeadSLB_POLICY_V4)
	policyV6      = int(slicelbSlbPolicyHeadSLB_POLICY_V6)
	policyExcept  = int(slicelbSlbPolicyHeadSLB_POLICY_EXCEPT)
	policyRows    = int(slicelbSlbPolicyHeadSLB_POLICY_ROWS)
	policyClasses = int(slicelbSlbPolicyHeadSLB_POLICY_CLASSES)
	policySize    = int(slicelbSlbPolicyHeadSLB_POLICY_SIZE)

	policyProbes  = 4
	policyHash    = 0x9e3779b97f4a7c15
	policyMaxRow  = 1<<24 - 1
	policyMaxRule = 1<<22 - 1
	policyDeny    = 1 << 15 // of a class

	// PolicyMaxClass is the most that a class may be.
	PolicyMaxClass = 1<<15 - 1
)

// Lines is how many lines the policy takes; sum stands for its content without
// Classes: equal sums, equal content.
func (p *Policy) Lines() (n uint32, sum uint64, err error) {
	lines, err := p.encode()
	if err != nil {
		return 0, 0, err
	}
	return uint32(len(lines)), lines[0].W[policySum], nil
}

// policyImage is a policy in the making.
type policyImage struct{ lines []policyLine }

// grow adds lines and returns the first.
func (i *policyImage) grow(n int) uint32 {
	first := len(i.lines)
	i.lines = append(i.lines, make([]policyLine, n)...)
	return uint32(first)
}

func (i *policyImage) word(line, word uint32) *uint64 { return &i.lines[line+word>>3].W[word&7] }

func (p *Policy) encode() ([]policyLine, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	img := &policyImage{lines: make([]policyLine, policyData)}
	head := &[8]uint64{}

	rows := img.grow((len(p.Rows) + 1 + 15) / 16)
	head[policyRows] = uint64(rows) | uint64(len(p.Rows))<<32
	var except []uint64
	for i, r := range p.Rows {
		w := uint64(r.Action) | uint64(r.Rule)<<8
		if len(r.Except) > 0 {
			w |= 1 << 2
		}
		*img.word(rows, uint32(i+1)/2) |= w << ((i + 1) % 2 * 32)
		for _, e := range r.Except {
			except = append(except, uint64(i+1)|uint64(e.Class)<<24|uint64(e.Action)<<40|uint64(e.Rule)<<42)
		}
	}

	words := 0
	for _, t := range p.Tables {
		words += 1 + len(t)
	}
	ports := img.grow((words+7)/8) * 8
	tables := make([]uint32, len(p.Tables))
	for i, t := range p.Tables {
		tables[i] = ports
		*img.word(0, ports) = uint64(len(t))
		for j, r := range t {
			*img.word(0, ports+1+uint32(j)) = uint64(r.Low) | uint64(r.TCP)<<16 | uint64(r.UDP)<<40
		}
		ports += 1 + uint32(len(t))
	}

	if err := img.networks(p.Networks, tables, head); err != nil {
		return nil, err
	}
	if err := img.hash(policyExcept, except, 1<<40-1, 0, head); err != nil {
		return nil, err
	}
	// Last: what precedes them does not depend on them.
	classes := img.grow((len(p.Classes) + 31) / 32)
	head[policyClasses] = uint64(classes) | uint64(len(p.Classes))<<32
	for i, c := range p.Classes {
		w := uint64(c.Class)
		if c.Deny {
			w |= policyDeny
		}
		*img.word(classes, uint32(i)/4) |= w << (i % 4 * 16)
	}
	head[policySize] = uint64(len(img.lines)) | uint64(p.Rules)<<32
	img.lines[0].W = *head
	img.lines[0].W[policySum] = policyContent(img.lines)
	return img.lines, nil
}

// check refuses what has no room in its bits.
func (p *Policy) check() error {
	if len(p.Rows) > policyMaxRow {
		return fmt.Errorf("%d rows: at most %d", len(p.Rows), policyMaxRow)
	}
	if p.Rules > uint32(slicelbRules) {
		return fmt.Errorf("%d rules: at most %d", p.Rules, slicelbRules)
	}
	rule := func(r uint32, a PolicyAction) error {
		if r > min(p.Rules, policyMaxRule) || a > PolicyAudit {
			return fmt.Errorf("rule %d, %s: not one of %d", r, a, p.Rules)
		}
		return nil
	}
	for _, r := range p.Rows {
		if err := rule(r.Rule, r.Action); err != nil {
			return err
		}
		for _, e := range r.Except {
			if err := rule(e.Rule, e.Action); err != nil {
				return err
			}
			if e.Class == 0 || e.Class > PolicyMaxClass {
				return fmt.Errorf("exception for class %d", e.Class)
			}
		}
	}
	for _, c := range p.Classes {
		if c.Class > PolicyMaxClass {
			return fmt.Errorf("class %d: at most %d", c.Class, PolicyMaxClass)
		}
	}
	for _, t := range p.Tables {
		if len(t) == 0 || t[0].Low != 0 || !slices.IsSortedFunc(t, func(a, b PolicyPorts) int { return int(a.Low) - int(b.Low) }) {
			return errors.New("a table's ports do not rise from 0")
		}
		for _, r := range t {
			if int(r.TCP) > len(p.Rows) || int(r.UDP) > len(p.Rows) {
				return fmt.Errorf("ports from %d on name no row", r.Low)
			}
		}
	}
	for _, n := range p.Networks {
		if int(n.Table) >= len(p.Tables) || !n.Prefix.IsValid() || n.Prefix.Addr().Is4In6() || n.Prefix != n.Prefix.Masked() {
			return fmt.Errorf("network %s, table %d", n.Prefix, n.Table)
		}
	}
	return nil
}

// networks writes the two hashes, the lengths that are searched, and the bitmaps.
func (i *policyImage) networks(list []PolicyNetwork, tables []uint32, head *[8]uint64) error {
	var v4 []uint64
	var v6 [][3]uint64
	lengths := map[bool]map[int]bool{true: {}, false: {}}
	for _, n := range list {
		is4 := n.Prefix.Addr().Is4()
		lengths[is4][n.Prefix.Bits()] = true
		i.name(n.Prefix)
		table, length := uint64(tables[n.Table]), uint64(n.Prefix.Bits())+1
		if is4 {
			a := n.Prefix.Addr().As4()
			v4 = append(v4, uint64(binary.BigEndian.Uint32(a[:]))|length<<32|table<<38)
			continue
		}
		a := n.Prefix.Addr().As16()
		v6 = append(v6, [3]uint64{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:]), length | table<<8})
	}
	for is4, first := range map[bool]uint32{true: policyLengths4, false: policyLengths6} {
		at := uint32(0)
		for n := range 129 {
			if lengths[is4][n] {
				*i.word(first, at/8) |= uint64(n) << (at % 8 * 8)
				at++
			}
		}
	}
	if err := i.hash(policyV4, v4, 1<<38-1, len(lengths[true]), head); err != nil {
		return err
	}
	return i.hash6(v6, len(lengths[false]), head)
}

// name sets the bits of the halves of addresses in which a network lies.
func (i *policyImage) name(p netip.Prefix) {
	set := func(first, bit uint32) { *i.word(first, bit>>6) |= 1 << (bit & 63) }
	if p.Addr().Is4() {
		a := p.Addr().As4()
		first := uint32(a[0])<<8 | uint32(a[1])
		for n := range uint32(1) << max(0, 16-p.Bits()) {
			half := first + n // in host order; in memory the bytes are swapped
			set(policyNames4, uint32(bits.ReverseBytes16(uint16(half))))
		}
		return
	}
	a := p.Addr().As16()
	first := binary.BigEndian.Uint32(a[:4])
	if p.Bits() < 16 {
		for bit := range uint32(1 << 16) {
			set(policyNames6, bit)
		}
		return
	}
	for n := range uint32(1) << max(0, 32-p.Bits()) {
		set(policyNames6, bits.ReverseBytes32(first+n)*0x9e3779b1>>16)
	}
}

func policyHome(key uint64, mask uint32) uint32 { return uint32(key*policyHash>>32) & mask }

// hash places words by the bits of key, eight to a line, each at most policyProbes
// lines from home.
func (i *policyImage) hash(at int, words []uint64, key uint64, lengths int, head *[8]uint64) error {
	for n := 1; n <= 1<<20; n *= 2 {
		if n*8 < len(words)+len(words)/4 {
			continue
		}
		lines := make([]policyLine, n)
		if !slices.ContainsFunc(words, func(w uint64) bool { return !place8(lines, w, policyHome(w&key, uint32(n-1))) }) {
			i.table(at, lines, lengths, head)
			return nil
		}
	}
	return fmt.Errorf("%w: no hash holds %d words", ErrFull, len(words))
}

func place8(lines []policyLine, w uint64, home uint32) bool {
	for n := range uint32(policyProbes) {
		l := &lines[(home+n)&uint32(len(lines)-1)]
		for j := range l.W {
			if l.W[j] == 0 {
				l.W[j] = w
				return true
			}
		}
	}
	return false
}

// hash6 places entries of three words, two to a line.
func (i *policyImage) hash6(entries [][3]uint64, lengths int, head *[8]uint64) error {
next:
	for n := 1; n <= 1<<22; n *= 2 {
		if n*2 < len(entries)+len(entries)/3 {
			continue
		}
		lines := make([]policyLine, n)
		for _, e := range entries {
			mixed := (e[0] ^ bits.RotateLeft64(e[1], 1)) + e[2]&0xff - 1
			if !place2(lines, e, policyHome(mixed, uint32(n-1))) {
				continue next
			}
		}
		i.table(policyV6, lines, lengths, head)
		return nil
	}
	return fmt.Errorf("%w: no hash holds %d networks", ErrFull, len(entries))
}

func place2(lines []policyLine, e [3]uint64, home uint32) bool {
	for n := range uint32(policyProbes) {
		l := &lines[(home+n)&uint32(len(lines)-1)]
		for _, j := range []int{0, 3} {
			if l.W[j+2] == 0 {
				copy(l.W[j:], e[:])
				return true
			}
		}
	}
	return false
}

func (i *policyImage) table(at int, lines []policyLine, lengths int, head *[8]uint64) {
	first := i.grow(len(lines))
	copy(i.lines[first:], lines)
	head[at] = uint64(first) | uint64(len(lines)-1)<<24 | uint64(lengths)<<48
}

// policyContent is the sum of everything but itself and the classes, which are
// last.
func policyContent(lines []policyLine) uint64 {
	h := sha256.New()
	var buf [64]byte
	classes := uint32(lines[0].W[policyClasses])
	for n, l := range lines[:min(int(classes), len(lines))] {
		if n == 0 {
			l.W[policySum], l.W[policyClasses], l.W[policySize] = 0, 0, l.W[policySize]>>32
		}
		for j, w := range l.W {
			binary.LittleEndian.PutUint64(buf[8*j:], w)
		}
		h.Write(buf[:])
	}
	return binary.LittleEndian.Uint64(h.Sum(nil))
}
