package bpf

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// kept is what callers keep, by who they are.
func (p *plane) kept() map[slicelbSlbAffinityKey]slicelbSlbAffinity {
	p.t.Helper()
	out := make(map[slicelbSlbAffinityKey]slicelbSlbAffinity)
	err := each(p.maps[slicelbMapAffinity], func(k slicelbSlbAffinityKey, a slicelbSlbAffinity) { out[k] = a })
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// A caller keeps its backend until it has not called for the time that is set, or
// the backend takes no new connections; another group in the same network
// namespace is another caller, and so is the same group in another one; it
// outlives the daemon. // edge D45
func TestKernelAffinity(t *testing.T) {
	p := newPlane(t, small)
	const vip = "10.96.0.10:53"
	weights := map[string]uint32{}
	for i := range 8 {
		weights[fmt.Sprintf("127.0.0.%d:9", i+1)] = 1
	}
	v := p.vip("kept", vip+"/udp").steered(Cell{Affinity: 60}, weights)
	p.apply(SetGroup{0, Group{Name: "host", Translate: true}})
	slice := p.root.Make(t, "web.slice")
	p.mapTo(slice, p.newGroup("web", true), 0)
	split := p.root.Make(t, "job.scope")
	p.apply(PutCgroup{split.ID(t), Rule{Group: 1, Split: true}})

	c := kerneltest.Start(t, p.root)
	call := func() {
		s := c.UDP(vip)
		succeeds(t, "connect", s.Connect(vip))
		succeeds(t, "close", s.Close())
	}
	stays := func(what, want string) {
		t.Helper()
		for range 12 { // by chance: 1 in 8^12
			if got := v.chosen(call); got != want {
				t.Fatalf("%s: went to %s, want %s", what, got, want)
			}
		}
	}
	mine := v.chosen(call)
	stays("kept", mine)
	if got := v.chosen(func() { succeeds(t, "sendto", c.UDP(vip).SendTo("x", vip, 0)) }); got != mine {
		t.Errorf("a datagram went to %s, not %s", got, mine)
	}

	// Others have places of their own, whatever they hold.
	if err := c.Enter(slice); err != nil {
		t.Fatal(err)
	}
	theirs := v.chosen(call)
	stays("another group", theirs)
	if err := c.Enter(split); err != nil {
		t.Fatal(err)
	}
	stays("a split child", v.chosen(call))
	if err := c.Enter(p.root); err != nil {
		t.Fatal(err)
	}
	kerneltest.NewNetns(t).Do(t, func() {
		away := kerneltest.Start(t, p.root)
		_ = away.UDP(vip).Connect(vip) // loopback is the daemon's: it is told so, and keeps none
	})
	who := map[uint64]int{}
	for k := range p.kept() {
		who[k.Who]++
	}
	host := uint64(1<<63 | uint64(nameHash("host"))<<20)
	if who[host] != 1 || who[1<<63|uint64(nameHash("web"))<<20|1] != 1 || who[split.ID(t)] != 1 || len(who) != 3 {
		t.Errorf("callers: %v", who)
	}
	stays("after the others", mine)

	// A change of the cell alone ends nothing, unless it is strict.
	v.set(v.now)
	stays("a new generation", mine)

	// The next process takes it over.
	store := inStore(t, p.Datapath)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := Adopt(store, small)
	if err != nil {
		t.Fatal(err)
	}
	p.Datapath = d
	stays("adopted", mine)

	// A backend that takes nothing new any more.
	for _, state := range []BackendState{BackendDraining, BackendDown} {
		v.state(mine, state)
		left := map[string]uint32{}
		for a := range weights {
			if a != mine {
				left[a] = 1
			}
		}
		v.steered(Cell{Affinity: 60}, left)
		now := v.chosen(call)
		if now == mine || now == "" {
			t.Fatalf("a backend that is %s was kept: %s", state, now)
		}
		stays("chosen anew", now)
		v.steered(Cell{Affinity: 60}, weights) // it is back
		stays("and kept when the old one is back", now)
		mine = now
	}

	// Another owner of the index, then a time without a call.
	i := v.backends[netip.MustParseAddrPort(mine)]
	p.apply(SetBackendCell{i, BackendCell{State: BackendActive, Gen: 2}})
	before := p.kept()
	v.chosen(call)
	var key slicelbSlbAffinityKey
	for k, a := range p.kept() {
		if before[k] != a {
			key = k
		}
	}
	a := p.kept()[key]
	if a.Backend == i && a.BackendGen != 1 || a.UsedNs == before[key].UsedNs {
		t.Errorf("was %+v, is %+v", before[key], a)
	}
	p.apply(SetBackendCell{i, BackendCell{State: BackendActive, Gen: 1}})
	a.UsedNs -= 61e9
	if err := p.maps[slicelbMapAffinity].Put(key, a); err != nil {
		t.Fatal(err)
	}
	v.chosen(call)
	if now := p.kept()[key]; now.UsedNs-a.UsedNs < 61e9 {
		t.Errorf("what was over was used again: %+v, %+v", a, now)
	}
	a = p.kept()[key]
	a.UsedNs -= 30e9
	if err := p.maps[slicelbMapAffinity].Put(key, a); err != nil {
		t.Fatal(err)
	}
	v.chosen(call)
	if now := p.kept()[key]; now.UsedNs-a.UsedNs < 30e9 || now.Backend != a.Backend {
		t.Errorf("a call does not make it last: %+v, %+v", a, now)
	}

	// Another CPU's call may have stored a time that is ahead of this one's.
	a = p.kept()[key]
	a.UsedNs += 30e9
	if err := p.maps[slicelbMapAffinity].Put(key, a); err != nil {
		t.Fatal(err)
	}
	v.chosen(call)
	if now := p.kept()[key]; now != a {
		t.Errorf("a time ahead ended it: %+v, %+v", a, now)
	}
	a.UsedNs -= 30e9
	if err := p.maps[slicelbMapAffinity].Put(key, a); err != nil {
		t.Fatal(err)
	}

	// Strict: a change of the cell ends it.
	v.steered(Cell{Affinity: 60, Strict: true}, weights)
	v.chosen(call)
	was := p.kept()[key]
	v.chosen(call)
	if now := p.kept()[key]; now != was {
		t.Errorf("%+v became %+v", was, now)
	}
	v.set(v.now)
	v.chosen(call)
	if now := p.kept()[key]; now.Word == was.Word {
		t.Errorf("kept over a change: %+v", now)
	}
}

// A cell's index is another VIP's by now: what callers and sockets keep of it is
// the former VIP's, whose backend is still there.
func TestKernelKeptByFormerVIP(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0").Addr.String()
	b := kerneltest.Serve(t, "b", "127.0.0.1:0").Addr.String()
	const vip = "10.96.0.10:53"
	first := p.vip("first", vip+"/udp").steered(Cell{Affinity: 60}, map[string]uint32{a: 1})
	c := kerneltest.Start(t, p.root)
	s := c.UDP(vip)
	succeeds(t, "sendto", s.SendTo("x", vip, 0))
	answers(t, "the first VIP", s, "a")

	// The frontend goes over to a cell whose view has the index of the former one's.
	second := p.vip("second", "10.96.0.11:53/udp").steered(Cell{Affinity: 60}, map[string]uint32{b: 1})
	p.apply(PutView{ViewKey{second.cell, 0}, first.cell})
	base, count := second.slots(b)
	first.gen++
	p.apply(SetCell{first.cell, Cell{Action: Balance, Base: base, Count: count, Affinity: 60, Gen: first.gen}})
	second.now.Selective = true
	second.set(second.now)
	for _, i := range first.frontends {
		p.apply(SetFrontendRef{i, FrontendRef{Cell: second.cell, Gen: 1}})
	}
	if got := second.chosen(func() { succeeds(t, "connect", c.UDP(vip).Connect(vip)) }); got != b {
		t.Errorf("a caller went to %q, want %s: it keeps what was another VIP's", got, b)
	}
	if got := second.chosen(func() { succeeds(t, "sendto", s.SendTo("x", vip, 0)) }); got != b {
		t.Errorf("a datagram went to %q, want %s: its flow keeps what was another VIP's", got, b)
	}
}

// A caller in another network namespace keeps no backend that lies on the daemon's
// loopback, where the pool has others. // edge D29
func TestKernelAffinityLoopback(t *testing.T) {
	p := newPlane(t, small)
	const vip, here, there = "10.96.0.10:53", "127.0.0.1:9", "192.0.2.1:9"
	v := p.vip("mixed", vip+"/udp").steered(Cell{Affinity: 60}, map[string]uint32{here: 1, there: 1})
	index := func(a string) uint32 { return v.backends[netip.MustParseAddrPort(a)] }
	kerneltest.NewNetns(t).Do(t, func() {
		c := kerneltest.Start(t, p.root)
		comesToKeep := func(what string) {
			t.Helper()
			for range 64 { // by chance: 1 in 2^64
				_ = c.UDP(vip).Connect(vip) // there is no route there
				for _, a := range p.kept() {
					if a.Backend == index(there) {
						return
					}
				}
			}
			t.Fatalf("%s: keeps %+v", what, p.kept())
		}
		comesToKeep("new")
		for k, a := range p.kept() { // as if it had kept it before
			a.Backend = index(here)
			if err := p.maps[slicelbMapAffinity].Put(k, a); err != nil {
				t.Fatal(err)
			}
		}
		comesToKeep("one that it cannot reach")
	})
}

// A backend that a group must not have any more, while others of the VIP's groups
// still may: a flow that has it chooses anew. One that drains keeps its flows.
func TestKernelUDPLeavesPool(t *testing.T) {
	for _, strict := range []bool{false, true} {
		p := newPlane(t, small)
		const vip, a, b = "10.96.0.10:53", "127.0.0.1:9", "127.0.0.2:9"
		v := p.vip("v", vip+"/udp").steered(Cell{Strict: strict}, map[string]uint32{a: 1})
		s := kerneltest.Start(t, p.root).UDP(vip)
		send := func() { succeeds(t, "sendto", s.SendTo("x", vip, 0)) }
		if got := v.chosen(send); got != a {
			t.Fatalf("strict=%v: went to %q, want %s", strict, got, a)
		}
		v.state(a, BackendDraining)
		v.steered(Cell{Strict: strict}, map[string]uint32{b: 1})
		if got := v.chosen(send); got != "" {
			t.Errorf("strict=%v: left a backend that drains for %q", strict, got)
		}
		v.state(a, BackendActive) // as a backend of another of the VIP's pools
		want := ""
		if strict {
			want = b
		}
		if got := v.chosen(send); got != want {
			t.Errorf("strict=%v: chose %q, want %q", strict, got, want)
		}
	}
}
