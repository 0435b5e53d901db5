package bpf

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"unsafe"
)

// How keys and values lie in memory: here and in policy_encode.go alone. The types
// come from api.h by bpf2go; the bits of words are api.h's macros again.

const (
	cellBaseBits      = 28
	cellCountBits     = 18
	cellAlgorithmBits = 2
	cellGenBits       = 10

	cellCountShift     = cellBaseBits
	cellAlgorithmShift = 46
	cellActionShift    = 48
	cellSelectiveShift = 52
	cellAffinityShift  = 53
	cellGenShift       = 54

	affinityStrict = 1 << 32

	ruleBits      = 20 // of a group, and of a node
	ruleNodeShift = ruleBits
	ruleSplit     = 1 << 40
	ruleCounted   = 1 << 41

	cgroupCheckShift = 42

	slotBits   = 17                   // of a backend's index in a slot
	slotWeight = 1<<(32-slotBits) - 1 // the most that is beside it

	groupHashShift   = 32
	groupUsed        = 1 << 0
	groupNoTranslate = 1 << 1
	groupDeny        = 1 << 2
	groupStrict      = 1 << 3

	backendLoopback = 1 << 0

	traitPassive      = 1 << 0
	traitReported     = 1 << 1
	traitTerminateUDP = 1 << 2
	traitTerminateTCP = 1 << 3
)

// CellGenMask is what a Cell's generation wraps at.
const CellGenMask = 1<<cellGenBits - 1

// decodeRecord copies what a program wrote out of a buffer; false: it is cut.
func decodeRecord[T any](sample []byte, out *T) bool {
	b := unsafe.Slice((*byte)(unsafe.Pointer(out)), unsafe.Sizeof(*out))
	return len(sample) >= len(b) && copy(b, sample) == len(b)
}

// encodeAddr maps IPv4 into IPv6, in network byte order.
func encodeAddr(a netip.Addr) (slicelbSlbAddr, error) {
	var out slicelbSlbAddr
	if !a.IsValid() {
		return out, fmt.Errorf("address is not set")
	}
	if a.Zone() != "" {
		return out, fmt.Errorf("address %s: a zone cannot be kept", a)
	}
	b := a.As16()
	for i := range out.WordBe {
		out.WordBe[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return out, nil
}

func decodeAddr(a slicelbSlbAddr) netip.Addr {
	var b [16]byte
	for i, w := range a.WordBe {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	return netip.AddrFrom16(b).Unmap()
}

// swapPort turns a port from host into network order and back.
func swapPort(p uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], p)
	return binary.NativeEndian.Uint16(b[:])
}

func encodeFrontendKey(k FrontendKey) (slicelbSlbFrontendKey, error) {
	addr, err := encodeAddr(k.Addr.Addr())
	if err != nil {
		return slicelbSlbFrontendKey{}, err
	}
	return slicelbSlbFrontendKey{Addr: addr, PortBe: swapPort(k.Addr.Port()), Proto: k.Proto}, nil
}

func decodeFrontendKey(k slicelbSlbFrontendKey) FrontendKey {
	return FrontendKey{
		Addr:  netip.AddrPortFrom(decodeAddr(k.Addr), swapPort(k.PortBe)),
		Proto: k.Proto,
	}
}

// word joins two halves (SLB_REF, SLB_FRONTEND, backend_cells).
func word(low, high uint32) uint64       { return uint64(low) | uint64(high)<<32 }
func halves(w uint64) (low, high uint32) { return uint32(w), uint32(w >> 32) }

// FrontendGenMask is what a FrontendRef's generation wraps at.
const FrontendGenMask = 1<<31 - 1

func encodeFrontendRef(r FrontendRef) uint64 {
	w := word(r.Cell, r.Gen&FrontendGenMask)
	if r.Rest {
		w |= 1 << 63
	}
	return w
}

func decodeFrontendRef(w uint64) FrontendRef {
	cell, gen := halves(w)
	return FrontendRef{Cell: cell, Gen: gen & FrontendGenMask, Rest: w>>63 == 1}
}

func encodeBackendCell(c BackendCell) uint64 { return word(uint32(c.State), c.Gen) }

func decodeBackendCell(w uint64) BackendCell {
	state, gen := halves(w)
	return BackendCell{State: BackendState(state), Gen: gen}
}

func encodeCell(c Cell) (uint64, error) {
	switch {
	case c.Base >= 1<<cellBaseBits:
		return 0, fmt.Errorf("base %d: at most %d bits", c.Base, cellBaseBits)
	case c.Count >= 1<<cellCountBits:
		return 0, fmt.Errorf("count %d: at most %d bits", c.Count, cellCountBits)
	case c.Action > RejectDown:
		return 0, fmt.Errorf("unknown action %d", c.Action)
	case (c.Action == Balance) != (c.Count > 0):
		return 0, fmt.Errorf("%s with %d slots", c.Action, c.Count)
	case c.Algorithm > Maglev:
		return 0, fmt.Errorf("unknown algorithm %d", c.Algorithm)
	case c.Action != Balance && (c.Algorithm != Random || c.Affinity != 0 || c.Strict):
		return 0, fmt.Errorf("%s: nothing to choose or to keep", c)
	case c.Gen > CellGenMask:
		return 0, fmt.Errorf("generation %d: at most %d bits", c.Gen, cellGenBits)
	}
	w := uint64(c.Base) | uint64(c.Count)<<cellCountShift |
		uint64(c.Algorithm)<<cellAlgorithmShift |
		uint64(c.Action)<<cellActionShift | uint64(c.Gen)<<cellGenShift
	if c.Affinity > 0 {
		w |= 1 << cellAffinityShift
	}
	if c.Selective {
		w |= 1 << cellSelectiveShift
	}
	return w, nil
}

// encodeAffinity is the word of cell_affinity.
func encodeAffinity(c Cell) uint64 {
	w := uint64(c.Affinity)
	if c.Strict {
		w |= affinityStrict
	}
	return w
}

// decodeCell reads both words of a cell.
func decodeCell(w, affinity uint64) Cell {
	c := Cell{
		Base:      uint32(w & (1<<cellBaseBits - 1)),
		Count:     uint32(w >> cellCountShift & (1<<cellCountBits - 1)),
		Algorithm: Algorithm(w >> cellAlgorithmShift & (1<<cellAlgorithmBits - 1)),
		Action:    Action(w >> cellActionShift & 0xf),
		Selective: w>>cellSelectiveShift&1 == 1,
		Gen:       uint16(w >> cellGenShift),
	}
	if w>>cellAffinityShift&1 == 1 {
		c.Affinity = uint32(affinity)
	}
	c.Strict = c.Action == Balance && affinity&affinityStrict != 0
	return c
}

// NewSlot is a slot of a backend. weight is how many slots the backend has in the
// cell, where the algorithm is LeastConnections, else 0.
func NewSlot(backend, weight uint32) uint32 { return backend | weight<<slotBits }

// SlotBackend is the backend's index in a slot.
func SlotBackend(slot uint32) uint32 { return slot & (1<<slotBits - 1) }

// SlotWeight is the other half.
func SlotWeight(slot uint32) uint32 { return slot >> slotBits }

// MaxSlotWeight is the greatest that fits.
const MaxSlotWeight = slotWeight

// encodeRule is a word of expect and expect_patterns; encodeCgroup adds the
// check of the cgroup's id.
func encodeRule(r Rule) (uint64, error) {
	if r.Group >= 1<<ruleBits || r.Node >= 1<<ruleBits {
		return 0, fmt.Errorf("%s: at most %d bits each", r, ruleBits)
	}
	w := uint64(r.Group) | uint64(r.Node)<<ruleNodeShift
	if r.Split {
		w |= ruleSplit
	}
	if r.Counted {
		w |= ruleCounted
	}
	return w, nil
}

func decodeRule(w uint64) Rule {
	return Rule{
		Group: uint32(w & (1<<ruleBits - 1)),
		Node:  uint32(w >> ruleNodeShift & (1<<ruleBits - 1)),
		Split: w&ruleSplit != 0, Counted: w&ruleCounted != 0,
	}
}

func encodeCgroup(r Rule, id uint64) (uint64, error) {
	w, err := encodeRule(r)
	return w | id<<cgroupCheckShift, err
}

// decodeCgroup says whether w was written for id.
func decodeCgroup(w, id uint64) (Rule, bool) {
	return decodeRule(w), w>>cgroupCheckShift == id&(1<<(64-cgroupCheckShift)-1)
}

func encodeGroup(g Group) uint64 {
	if g.Name == "" {
		return 0
	}
	w := groupUsed | uint64(nameHash(g.Name))<<groupHashShift
	if !g.Translate {
		w |= groupNoTranslate
	}
	if g.Deny {
		w |= groupDeny
	}
	if g.Strict {
		w |= groupStrict
	}
	return w
}

// nameHash stands for a group wherever its index may not: it is the same on every
// host, and after every start.
func nameHash(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

func encodeBackend(b Backend) (slicelbSlbBackend, error) {
	addr, err := encodeAddr(b.Addr.Addr())
	if err != nil {
		return slicelbSlbBackend{}, err
	}
	out := slicelbSlbBackend{
		Addr:       addr,
		PortBe:     swapPort(b.Addr.Port()),
		Generation: b.Gen,
		Cell:       b.Cell,
	}
	if b.Addr.Addr().Unmap().IsLoopback() {
		out.Flags |= backendLoopback
	}
	return out, nil
}

func decodeBackend(b slicelbSlbBackend) Backend {
	return Backend{
		Addr: netip.AddrPortFrom(decodeAddr(b.Addr), swapPort(b.PortBe)),
		Gen:  b.Generation,
		Cell: b.Cell,
	}
}

// setText copies s into a field that ends in at least one zero byte.
func setText(field []int8, s string) error {
	if len(s) >= len(field) {
		return fmt.Errorf("%q: longer than %d bytes", s, len(field)-1)
	}
	for i := range len(s) {
		field[i] = int8(s[i])
	}
	return nil
}

// text reads a field up to its first zero byte, or n bytes of it.
func text(field []int8, n int) string {
	b := make([]byte, 0, len(field))
	for i, c := range field {
		if c == 0 || i == n {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}

func encodeCellInfo(i CellInfo) (slicelbSlbCellInfo, error) {
	out := slicelbSlbCellInfo{Family: i.Family, Of: i.Of}
	if err := setText(out.Vip[:], i.VIP); err != nil {
		return out, err
	}
	return out, setText(out.Group[:], i.Group)
}

func decodeCellInfo(i slicelbSlbCellInfo) CellInfo {
	return CellInfo{
		VIP:    text(i.Vip[:], len(i.Vip)),
		Group:  text(i.Group[:], len(i.Group)),
		Family: i.Family,
		Of:     i.Of,
	}
}

func encodeGroupInfo(g Group) (slicelbSlbGroupInfo, error) {
	var out slicelbSlbGroupInfo
	return out, setText(out.Name[:], g.Name)
}

// decodeGroup knows a word that is not what encodeGroup makes of the rest: the name
// was written, and then the process ended.
func decodeGroup(w uint64, i slicelbSlbGroupInfo) Group {
	g := Group{Name: text(i.Name[:], len(i.Name))}
	if g.Name != "" {
		g.Translate = w&groupNoTranslate == 0
		g.Deny, g.Strict = w&groupDeny != 0, w&groupStrict != 0
		g.Stale = encodeGroup(g) != w
	}
	return g
}

func encodeExpectKey(k ExpectKey) (slicelbSlbExpectKey, error) {
	out := slicelbSlbExpectKey{Node: k.Node, NameLen: uint32(len(k.Name))}
	return out, setText(out.Name[:], k.Name)
}

func decodeExpectKey(k slicelbSlbExpectKey) ExpectKey {
	return ExpectKey{Node: k.Node, Name: text(k.Name[:], int(min(k.NameLen, uint32(len(k.Name)))))}
}

func encodePatternKey(k PatternKey) slicelbSlbPatternKey {
	return slicelbSlbPatternKey{Node: k.Node, Ordinal: k.Ordinal}
}

func decodePatternKey(k slicelbSlbPatternKey) PatternKey {
	return PatternKey{Node: k.Node, Ordinal: k.Ordinal}
}

func encodePattern(p Pattern) (slicelbSlbPattern, error) {
	out := slicelbSlbPattern{PrefixLen: uint32(len(p.Prefix)), SuffixLen: uint32(len(p.Suffix))}
	var err error
	if out.Rule, err = encodeRule(p.Rule); err != nil {
		return out, err
	}
	if err := setText(out.Prefix[:], p.Prefix); err != nil {
		return out, err
	}
	return out, setText(out.Suffix[:], p.Suffix)
}

func decodePattern(p slicelbSlbPattern) Pattern {
	limit := uint32(len(p.Prefix))
	return Pattern{
		Prefix: text(p.Prefix[:], int(min(p.PrefixLen, limit))),
		Suffix: text(p.Suffix[:], int(min(p.SuffixLen, limit))),
		Rule:   decodeRule(p.Rule),
	}
}

func encodeViewKey(k ViewKey) slicelbSlbViewKey {
	return slicelbSlbViewKey{Cell: k.Cell, Group: k.Group}
}

func decodeViewKey(k slicelbSlbViewKey) ViewKey { return ViewKey{Cell: k.Cell, Group: k.Group} }
