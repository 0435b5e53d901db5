package bpf

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// raw is how a value lies in memory.
func raw[T any](v T) []byte {
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)))
}

func TestWords(t *testing.T) {
	must := func(w uint64, err error) uint64 {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	tests := []struct {
		name      string
		got, want uint64
	}{
		{"frontend ref", encodeFrontendRef(FrontendRef{Cell: 5, Gen: 7}), 0x7_00000005},
		{"backend cell", encodeBackendCell(BackendCell{State: BackendDraining, Gen: 9}), 0x9_00000002},
		{"cell none", must(encodeCell(Cell{})), 0},
		{"cell base", must(encodeCell(Cell{Base: 0xfffffff, Count: 1, Action: Balance})), 0x1_0000_1_fffffff},
		{"cell count", must(encodeCell(Cell{Count: 0x3ffff, Action: Balance})), 0x1_3ffff_0000000},
		{"cell algorithm", must(encodeCell(Cell{Count: 1, Action: Balance, Algorithm: Maglev})), 0x1_8000_1_0000000},
		{"cell affinity", must(encodeCell(Cell{Count: 1, Action: Balance, Affinity: 600})), 0x21_0000_1_0000000},
		{"affinity", encodeAffinity(Cell{Affinity: 600}), 600},
		{"affinity strict", encodeAffinity(Cell{Affinity: 600, Strict: true}), 1<<32 | 600},
		{"slot", uint64(NewSlot(0x1ffff, MaxSlotWeight)), 0xffffffff},
		{"cell action", must(encodeCell(Cell{Action: RejectDown})), 6 << 48},
		{"cell selective", must(encodeCell(Cell{Selective: true})), 1 << 52},
		{"cell generation", must(encodeCell(Cell{Gen: CellGenMask})), 0x3ff << 54},
		{"rule", must(encodeRule(Rule{Group: 3, Node: 0xfffff})), 3 | 0xfffff<<20},
		{"rule split", must(encodeRule(Rule{Split: true})), 1 << 40},
		{"rule counted", must(encodeRule(Rule{Split: true, Counted: true})), 3 << 40},
		{"cgroup", must(encodeCgroup(Rule{Group: 1}, 0x12345678_9abcdef0)), 1 | 0x3cdef0<<42},
		{"group", encodeGroup(Group{Name: "web", Translate: true}), uint64(nameHash("web"))<<32 | 1},
		{"group untranslated", encodeGroup(Group{Name: "web"}), uint64(nameHash("web"))<<32 | 3},
		{"group free", encodeGroup(Group{}), 0},
	}
	for _, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, tt.got, tt.want)
		}
	}
}

// Bytes as a sockaddr has them: what C compares. // edge D20
func TestKeysInNetworkOrder(t *testing.T) {
	key, err := encodeFrontendKey(FrontendKey{netip.MustParseAddrPort("203.0.113.250:40000"), TCP})
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 250,
		0x9c, 0x40, 6, 0, 0, 0, 0, 0,
	}
	if diff := cmp.Diff(want, raw(key)); diff != "" {
		t.Errorf("IPv4 frontend (-want +got):\n%s", diff)
	}

	key, err = encodeFrontendKey(FrontendKey{netip.MustParseAddrPort("[fd00:96::ff]:53"), UDP})
	if err != nil {
		t.Fatal(err)
	}
	want = []byte{
		0xfd, 0, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff,
		0, 53, 17, 0, 0, 0, 0, 0,
	}
	if diff := cmp.Diff(want, raw(key)); diff != "" {
		t.Errorf("IPv6 frontend (-want +got):\n%s", diff)
	}
}

func TestEncodeRefuses(t *testing.T) {
	long := strings.Repeat("x", 256)
	tests := []struct {
		name string
		err  func() error
		want string
	}{
		{"base", func() error { _, err := encodeCell(Cell{Base: 1 << 28, Count: 1, Action: Balance}); return err }, "base"},
		{"count", func() error { _, err := encodeCell(Cell{Count: 1 << 20, Action: Balance}); return err }, "count"},
		{"balance of nothing", func() error { _, err := encodeCell(Cell{Action: Balance}); return err }, "balance with 0 slots"},
		{"slots of none", func() error { _, err := encodeCell(Cell{Count: 1}); return err }, "none with 1 slots"},
		{"action", func() error { _, err := encodeCell(Cell{Action: 7}); return err }, "unknown action 7"},
		{"generation", func() error { _, err := encodeCell(Cell{Gen: 1 << 11}); return err }, "generation"},
		{"group", func() error { _, err := encodeRule(Rule{Group: 1 << 20}); return err }, "20 bits"},
		{"node", func() error { _, err := encodeCgroup(Rule{Node: 1 << 20}, 1); return err }, "20 bits"},
		{"no address", func() error { _, err := encodeFrontendKey(FrontendKey{}); return err }, "address is not set"},
		{"zone", func() error { _, err := encodeAddr(netip.MustParseAddr("fe80::1%lo")); return err }, "zone"},
		{"backend", func() error { _, err := encodeBackend(Backend{}); return err }, "address is not set"},
		{"vip name", func() error { _, err := encodeCellInfo(CellInfo{VIP: long}); return err }, "longer than 63"},
		{"group name", func() error { _, err := encodeGroupInfo(Group{Name: long}); return err }, "longer than 63"},
		{"component", func() error { _, err := encodeExpectKey(ExpectKey{Name: long}); return err }, "longer than 255"},
		{"prefix", func() error { _, err := encodePattern(Pattern{Prefix: long}); return err }, "longer than 255"},
		{"suffix", func() error { _, err := encodePattern(Pattern{Suffix: long}); return err }, "longer than 255"},
		{"pattern rule", func() error { _, err := encodePattern(Pattern{Rule: Rule{Node: 1 << 20}}); return err }, "20 bits"},
	}
	for _, tt := range tests {
		if err := tt.err(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one that says %q", tt.name, err, tt.want)
		}
	}
}

// The numbers of api.h and those that the rest of the program uses are the same.
func TestEnums(t *testing.T) {
	actions := map[Action]slicelbSlbAction{
		None:         slicelbSlbActionSLB_NONE,
		Balance:      slicelbSlbActionSLB_BALANCE,
		PassExcept:   slicelbSlbActionSLB_PASS_EXCEPT,
		PassHidden:   slicelbSlbActionSLB_PASS_HIDDEN,
		PassDown:     slicelbSlbActionSLB_PASS_DOWN,
		RejectHidden: slicelbSlbActionSLB_REJECT_HIDDEN,
		RejectDown:   slicelbSlbActionSLB_REJECT_DOWN,
	}
	for ours, theirs := range actions {
		if uint32(ours) != uint32(theirs) {
			t.Errorf("%s is %d here and %d in api.h", ours, ours, theirs)
		}
	}
	states := map[BackendState]slicelbSlbBackendState{
		BackendFree:     slicelbSlbBackendStateSLB_BACKEND_FREE,
		BackendActive:   slicelbSlbBackendStateSLB_BACKEND_ACTIVE,
		BackendDraining: slicelbSlbBackendStateSLB_BACKEND_DRAINING,
		BackendDown:     slicelbSlbBackendStateSLB_BACKEND_DOWN,
	}
	for ours, theirs := range states {
		if uint32(ours) != uint32(theirs) {
			t.Errorf("%s is %d here and %d in api.h", ours, ours, theirs)
		}
	}
}

func drawAddrPort(t *rapid.T) netip.AddrPort {
	var addr netip.Addr
	if rapid.Bool().Draw(t, "v4") {
		addr = netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "addr")))
	} else {
		addr = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr"))).Unmap()
	}
	return netip.AddrPortFrom(addr, rapid.Uint16().Draw(t, "port"))
}

func drawName(t *rapid.T, label string, most int) string {
	return string(rapid.SliceOfN(rapid.ByteRange(1, 255), 0, most).Draw(t, label))
}

func drawRule(t *rapid.T) Rule {
	return Rule{
		Group:   rapid.Uint32Max(1<<20-1).Draw(t, "group"),
		Node:    rapid.Uint32Max(1<<20-1).Draw(t, "node"),
		Split:   rapid.Bool().Draw(t, "split"),
		Counted: rapid.Bool().Draw(t, "counted"),
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		same := func(what string, want, got any, err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s %v: %v", what, want, err)
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", what, diff)
			}
		}
		fk := FrontendKey{drawAddrPort(t), rapid.Byte().Draw(t, "proto")}
		rawKey, err := encodeFrontendKey(fk)
		same("frontend", fk, decodeFrontendKey(rawKey), err)

		ref := FrontendRef{rapid.Uint32().Draw(t, "cell"), rapid.Uint32Max(FrontendGenMask).Draw(t, "gen"), rapid.Bool().Draw(t, "rest")}
		same("frontend ref", ref, decodeFrontendRef(encodeFrontendRef(ref)), nil)

		cell := Cell{
			Base:      rapid.Uint32Max(1<<28-1).Draw(t, "base"),
			Action:    Action(rapid.IntRange(0, 6).Draw(t, "action")),
			Selective: rapid.Bool().Draw(t, "selective"),
			Gen:       rapid.Uint16Max(CellGenMask).Draw(t, "cell gen"),
		}
		if cell.Action == Balance {
			cell.Count = rapid.Uint32Range(1, 1<<18-1).Draw(t, "count")
			cell.Algorithm = Algorithm(rapid.IntRange(0, 2).Draw(t, "algorithm"))
			cell.Affinity = rapid.Uint32().Draw(t, "affinity")
			cell.Strict = rapid.Bool().Draw(t, "strict")
		}
		w, err := encodeCell(cell)
		same("cell", cell, decodeCell(w, encodeAffinity(cell)), err)

		b := Backend{drawAddrPort(t), rapid.Uint32().Draw(t, "backend gen"), rapid.Uint32().Draw(t, "of")}
		rawBackend, err := encodeBackend(b)
		same("backend", b, decodeBackend(rawBackend), err)

		bc := BackendCell{BackendState(rapid.Uint32().Draw(t, "state")), rapid.Uint32().Draw(t, "bc gen")}
		same("backend cell", bc, decodeBackendCell(encodeBackendCell(bc)), nil)

		rule, id := drawRule(t), rapid.Uint64().Draw(t, "id")
		w, err = encodeCgroup(rule, id)
		got, ok := decodeCgroup(w, id)
		same("cgroup", rule, got, err)
		if other := id + rapid.Uint64Range(1, 1<<22-1).Draw(t, "distance"); !ok {
			t.Fatalf("word %#x is not of id %d", w, id)
		} else if _, ok := decodeCgroup(w, other); ok {
			t.Fatalf("word %#x of id %d is taken for one of %d", w, id, other)
		}

		g := Group{Name: drawName(t, "group name", 63)}
		if g.Name != "" {
			g.Translate = rapid.Bool().Draw(t, "translate")
			g.Deny, g.Strict = rapid.Bool().Draw(t, "deny"), rapid.Bool().Draw(t, "strict")
		}
		rawGroup, err := encodeGroupInfo(g)
		same("group", g, decodeGroup(encodeGroup(g), rawGroup), err)

		pw := PolicyWord{
			rapid.Uint32().Draw(t, "policy base"), rapid.Bool().Draw(t, "policy denies"), rapid.Bool().Draw(t, "host denies"),
			uint8(rapid.IntRange(0, 1).Draw(t, "bank")), rapid.Uint16().Draw(t, "policy gen"),
		}
		same("policy word", pw, decodePolicyWord(encodePolicyWord(pw)), nil)

		ci := CellInfo{
			VIP:    drawName(t, "vip", 63),
			Group:  drawName(t, "view", 63),
			Family: rapid.Byte().Draw(t, "family"),
			Of:     rapid.Uint32().Draw(t, "default cell"),
		}
		rawInfo, err := encodeCellInfo(ci)
		same("cell info", ci, decodeCellInfo(rawInfo), err)

		ek := ExpectKey{rapid.Uint32().Draw(t, "expect node"), drawName(t, "name", 255)}
		rawExpect, err := encodeExpectKey(ek)
		same("expect key", ek, decodeExpectKey(rawExpect), err)

		p := Pattern{drawName(t, "prefix", 255), drawName(t, "suffix", 255), drawRule(t)}
		rawPattern, err := encodePattern(p)
		same("pattern", p, decodePattern(rawPattern), err)
	})
}

// Whatever a word says, what is read of it makes that word again; what cannot is
// known: an id's check, a group's Stale.
func TestWordsMakeThemselvesAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.Uint64().Draw(t, "word")
		again := func(what string, got uint64) {
			t.Helper()
			if got != w {
				t.Errorf("%s: %#x makes %#x", what, w, got)
			}
		}
		again("frontend ref", encodeFrontendRef(decodeFrontendRef(w)))
		again("backend cell", encodeBackendCell(decodeBackendCell(w)))
		again("slot", w&^0xffffffff|uint64(NewSlot(SlotBackend(uint32(w)), SlotWeight(uint32(w)))))
		if got, err := encodeCell(decodeCell(w, 600)); err == nil {
			again("cell", got)
		}
		if id := w >> cgroupCheckShift; w>>41&1 == 0 {
			rule, ok := decodeCgroup(w, id)
			got, err := encodeCgroup(rule, id)
			if !ok || err != nil {
				t.Errorf("cgroup: %#x is not of %d: %v", w, id, err)
			}
			again("cgroup", got)
		}
		if spare := uint64(1<<policyWordGen - 1<<(policyWordBank+1)); w&spare == 0 {
			again("policy word", encodePolicyWord(decodePolicyWord(w)))
		}
		info, err := encodeGroupInfo(Group{Name: "web"})
		if err != nil {
			t.Fatal(err)
		}
		ours := rapid.Bool().Draw(t, "one of ours")
		if ours {
			w = w&(groupNoTranslate|groupDeny|groupStrict) | groupUsed | uint64(nameHash("web"))<<groupHashShift
		}
		if g := decodeGroup(w, info); !g.Stale {
			again("group", encodeGroup(g))
		} else if ours {
			t.Errorf("group: %#x is stale", w)
		}
	})
}

// Whatever lies in a map, reading it does not panic, and what was read can be
// written again or is refused. // fault F27
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 640))
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeFrontendKey(read[slicelbSlbFrontendKey](b))
		decodeBackend(read[slicelbSlbBackend](b))
		decodeCellInfo(read[slicelbSlbCellInfo](b))
		_ = decodeViewKey(read[slicelbSlbViewKey](b))
		_ = decodePatternKey(read[slicelbSlbPatternKey](b))
		w := read[uint64](b)
		decodeGroup(w, read[slicelbSlbGroupInfo](b))
		_ = decodeFrontendRef(w)
		_ = decodeBackendCell(w)
		if r, ok := decodeCgroup(w, w); ok && r.Group > 1<<20 {
			t.Errorf("group %d of word %#x", r.Group, w)
		}
		if c := decodeCell(w, 1); c.Action <= RejectDown && (c.Action == Balance) == (c.Count > 0) &&
			c.Algorithm <= Maglev && (c.Action == Balance || c.Steering() == "") {
			again, err := encodeCell(c)
			if err != nil || again != w {
				t.Errorf("word %#x reads as %s, which is %#x (%v)", w, c, again, err)
			}
		}
		ek := decodeExpectKey(read[slicelbSlbExpectKey](b))
		if _, err := encodeExpectKey(ek); err != nil && len(ek.Name) < 256 {
			t.Errorf("%v: %v", ek, err)
		}
		_ = decodePattern(read[slicelbSlbPattern](b)).String()
		decodeEvent(b)
		parseStoredName(string(b))
	})
}

// read takes a T from the start of b, zeroes behind its end.
func read[T any](b []byte) T {
	var v T
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)), b)
	return v
}

func TestFilter(t *testing.T) {
	addr := func(s string) slicelbSlbAddr {
		a, err := encodeAddr(netip.MustParseAddr(s))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	f := newFilter(make([]uint64, 1<<14))
	set := func() (n int) {
		for _, w := range f.words {
			for ; w != 0; w &= w - 1 {
				n++
			}
		}
		return n
	}
	a, b := addr("10.96.0.10"), addr("fd00:96::10")
	f.add(a)
	f.add(a)
	f.add(b)
	if set() != 2 {
		t.Fatalf("%d bits for two addresses", set())
	}
	f.remove(a)
	if set() != 2 {
		t.Error("a bit went while an entry needs it")
	}
	f.remove(a)
	f.remove(a) // absent: no effect
	if set() != 1 {
		t.Errorf("%d bits for one address", set())
	}
	err := f.rebuild(slices.Values([]netip.Addr{netip.MustParseAddr("10.96.0.10")}))
	if bit := f.bit(a); err != nil || set() != 1 || f.words[bit>>6]>>(bit&63)&1 != 1 {
		t.Errorf("after a rebuild: %d bits, %v", set(), err)
	}
}

// Neighbouring addresses get bits of their own: a host's VIPs lie in one network.
func TestFilterSpreads(t *testing.T) {
	bits := make(map[uint32]int)
	a := netip.MustParseAddr("10.96.0.0")
	const n = 1 << 16
	for range n {
		key, _ := encodeAddr(a)
		bits[filterBit(key, 20)]++
		a = a.Next()
	}
	if len(bits) < n*9/10 {
		t.Errorf("%d addresses share %d bits", n, len(bits))
	}
}

func TestStoredNames(t *testing.T) {
	for _, s := range []string{
		"slb1-000000f3a0c1d2e4-map-cells",
		"slb1-000000f3a0c1d2e4-map-.bss",
		"slb2-000000f3a0c1d2e4-prog-slb_connect4-117",
		"slb1-000000f3a0c1d2e4-link-slb_cgroup_mkdir-4294967295",
	} {
		if n, ok := parseStoredName(s); !ok || n.String() != s {
			t.Errorf("%s reads as %s, %v", s, n, ok)
		}
	}
	for _, s := range []string{
		"", "config", "slb1-1-map-cells", "slb1-000000f3a0c1d2e4-map-cells-1",
		"slb1-000000f3a0c1d2e4-link-slb_connect4", "slb1-000000f3a0c1d2e4-prog-x-01",
		"slb1-000000f3a0c1d2e4-file-x-1", "xlb1-000000f3a0c1d2e4-map-cells",
	} {
		if n, ok := parseStoredName(s); ok {
			t.Errorf("%q reads as %s", s, n)
		}
	}
}

func TestDecodeEvent(t *testing.T) {
	want := slicelbSlbCgroupEvent{TimeNs: 5, Id: 6, Parent: 7, Kind: 2, Mapped: 1}
	got, ok := decodeEvent(raw(want))
	if diff := cmp.Diff(Event{Kind: Rmdir, ID: 6, Parent: 7, Mapped: true, Time: 5}, got); !ok || diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if _, ok := decodeEvent(raw(want)[:10]); ok {
		t.Error("a cut event is read")
	}
}
