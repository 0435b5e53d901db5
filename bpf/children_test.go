package bpf

import (
	"maps"
	"slices"
	"testing"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// A split child that is to be counted has counts of its own, beside those of its
// group, which lack nothing. They outlive the daemon, and end with the child.
func TestKernelCountedChildren(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:80"
	tcp := p.vip("a", vip).to(a.Addr.String())
	udp := p.vip("a udp", vip+"/udp").to(a.Addr.String())
	web := p.newGroup("web", true)
	one, two, plain := p.root.Make(t, "1.scope"), p.root.Make(t, "2.scope"), p.root.Make(t, "3.scope")
	p.apply(
		PutCgroup{one.ID(t), Rule{Group: web, Split: true, Counted: true}},
		PutCgroup{two.ID(t), Rule{Group: web, Split: true, Counted: true}},
		PutCgroup{plain.ID(t), Rule{Group: web, Split: true}},
	)
	c := kerneltest.Start(t, p.root)
	in := func(g *kerneltest.Cgroup) {
		t.Helper()
		if err := c.Enter(g); err != nil {
			t.Fatal(err)
		}
	}
	first := func(v *service) ViewKey { return ViewKey{v.cell, ChildOf(one.ID(t))} }
	children := func(want map[ViewKey]Counters) {
		t.Helper()
		if got := p.counters().Children; !maps.Equal(got, want) {
			t.Errorf("children have %v, want %v", got, want)
		}
	}

	in(plain)
	succeeds(t, "connect", c.TCP(vip).Connect(vip))
	children(map[ViewKey]Counters{})
	in(one.Make(t, "container")) // the nearest that has a group is the child
	succeeds(t, "connect", c.TCP(vip).Connect(vip))
	succeeds(t, "sendto", c.UDP(vip).SendTo("x", vip, 0))
	tcp.set(Cell{Action: RejectDown})
	if err := c.TCP(vip).Connect(vip); err == nil {
		t.Error("a VIP that is down is connected to")
	}
	in(two)
	succeeds(t, "sendto", c.UDP(vip).SendTo("x", vip, 0))
	want := map[ViewKey]Counters{
		first(tcp): {Connects: 1, Rejected: 1}, first(udp): {Flows: 1},
		{udp.cell, ChildOf(two.ID(t))}: {Flows: 1},
	}
	children(want)
	groups := map[ViewKey]Counters{{tcp.cell, web}: {Connects: 2, Rejected: 1}, {udp.cell, web}: {Flows: 2}}
	if got := p.counters().Pairs; !maps.Equal(got, groups) {
		t.Errorf("groups have %v, want %v", got, groups)
	}

	store := inStore(t, p.Datapath)
	if err := p.maps[slicelbMapCgroups].Delete(two.ID(t)); err != nil { // as by the kernel, with the directory
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := Adopt(store, small)
	if err != nil {
		t.Fatal(err)
	}
	p.Datapath = d
	delete(want, ViewKey{udp.cell, ChildOf(two.ID(t))})
	children(want)

	// One that is counted no more leaves nothing, whether its cgroup stays or goes.
	p.apply(SetCgroup{one.ID(t), Rule{Group: web, Split: true}})
	children(map[ViewKey]Counters{})
	p.apply(SetCgroup{one.ID(t), Rule{Group: web, Split: true, Counted: true}})
	in(one)
	succeeds(t, "sendto", c.UDP(vip).SendTo("x", vip, 0))
	children(map[ViewKey]Counters{first(udp): {Flows: 1}})
	p.apply(DelCgroup{one.ID(t)})
	if err := p.Apply(PutCgroup{plain.ID(t), Rule{Group: web, Split: true, Counted: true}}); err == nil {
		t.Error("an entry is put twice")
	}
	if slices.ContainsFunc(p.pairKeys, func(w uint64) bool { return decodePair(w).Group&pairChild != 0 }) {
		t.Error("the counters of a child that is gone stand until somebody reads them")
	}
	if d.children[ChildOf(plain.ID(t))] {
		t.Error("one that could not be put counts")
	}
	if got := p.counters().Pairs; got[ViewKey{udp.cell, web}].Flows != 3 {
		t.Errorf("the group has %v", got)
	}

	// One that the kernel has taken out while nobody knew is found to be gone.
	p.apply(PutCgroup{one.ID(t), Rule{Group: web, Split: true, Counted: true}}, PutCgroup{two.ID(t), Rule{Group: web, Split: true, Counted: true}})
	succeeds(t, "sendto", c.UDP(vip).SendTo("x", vip, 0))
	in(two)
	succeeds(t, "sendto", c.UDP(vip).SendTo("x", vip, 0))
	if err := p.maps[slicelbMapCgroups].Delete(one.ID(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Cgroups(); err != nil {
		t.Fatal(err)
	}
	children(map[ViewKey]Counters{{udp.cell, ChildOf(two.ID(t))}: {Flows: 1}})
	if !maps.Equal(p.children, map[uint32]bool{ChildOf(two.ID(t)): true}) {
		t.Errorf("%v are said to count", p.children)
	}
}
