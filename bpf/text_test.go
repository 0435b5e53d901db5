package bpf

import (
	"net/netip"
	"testing"
)

func TestWritesRead(t *testing.T) {
	v4 := netip.MustParseAddrPort("10.96.0.10:5432")
	v6 := netip.MustParseAddrPort("[fd00:96::10]:53")
	tests := []struct {
		write Write
		want  string
	}{
		{PutFrontend{FrontendKey{v4, TCP}, 3}, "put frontend 10.96.0.10:5432/tcp index=3"},
		{DelFrontend{FrontendKey{v6, UDP}}, "del frontend [fd00:96::10]:53/udp"},
		{SetFrontendRef{3, FrontendRef{Cell: 5, Gen: 2}}, "set frontend-ref 3 cell=5 gen=2"},
		{SetCell{5, Cell{Base: 16, Count: 3, Action: Balance, Selective: true, Gen: 2}}, "set cell 5 balance base=16 count=3 selective gen=2"},
		{SetCell{5, Cell{Action: RejectDown}}, "set cell 5 reject-down gen=0"},
		{SetCellInfo{5, CellInfo{VIP: "db", Family: 4}}, `set cell-info 5 vip="db" family=4`},
		{SetCellInfo{6, CellInfo{VIP: "db", Family: 6, Group: "web", Of: 5}}, `set cell-info 6 vip="db" family=6 group="web" of=5`},
		{SetCellInfo{5, CellInfo{}}, "set cell-info 5 free"},
		{PutView{ViewKey{5, 2}, 9}, "put view cell=5 group=2 index=9"},
		{DelView{ViewKey{5, 2}}, "del view cell=5 group=2"},
		{SetSlots{16, []uint32{7, 7, 7, 8, 9, 9}}, "set slots 16 count=6 [7x3 8 9x2]"},
		{SetBackend{7, Backend{v4, 1, 5}}, "set backend 7 10.96.0.10:5432 gen=1 cell=5"},
		{SetBackendCell{7, BackendCell{BackendDraining, 1}}, "set backend-cell 7 draining gen=1"},
		{SetGroup{2, Group{Name: "web", Translate: true}}, `set group 2 "web"`},
		{SetGroup{2, Group{Name: "web", Deny: true, Strict: true}}, `set group 2 "web" no-translate deny strict`},
		{SetGroup{2, Group{}}, "set group 2 free"},
		{PutCgroup{77, Rule{Group: 2, Node: 0x5a}}, "put cgroup 77 group=2 node=0x5a"},
		{SetCgroup{77, Rule{Group: 2, Split: true}}, "set cgroup 77 group=2 node=0x0 split"},
		{DelCgroup{77}, "del cgroup 77"},
		{PutExpect{ExpectKey{0x5a, "a\n.slice"}, Rule{Group: 2}}, `put expect node=0x5a "a\n.slice" group=2 node=0x0`},
		{SetExpect{ExpectKey{0x5a, ""}, Rule{}}, "set expect node=0x5a rest group=0 node=0x0"},
		{DelExpect{ExpectKey{0x5a, "a.slice"}}, `del expect node=0x5a "a.slice"`},
		{PutPattern{PatternKey{0x5a, 1}, Pattern{"web@", ".service", Rule{Group: 2}}}, `put pattern node=0x5a #1 "web@"*".service" group=2 node=0x0`},
		{SetPattern{PatternKey{0x5a, 1}, Rule{Group: 3}}, "set pattern node=0x5a #1 group=3 node=0x0"},
		{DelPattern{PatternKey{0x5a, 1}}, "del pattern node=0x5a #1"},
	}
	for _, tt := range tests {
		if got := tt.write.String(); got != tt.want {
			t.Errorf("%T reads\n%s, want\n%s", tt.write, got, tt.want)
		}
	}
}

func TestLongSlotsAreCut(t *testing.T) {
	slots := make([]uint32, 65537)
	for i := range slots {
		slots[i] = uint32(i % 7)
	}
	if s := (SetSlots{0, slots}).String(); len(s) > 300 {
		t.Errorf("a line of %d bytes", len(s))
	}
}
