package bpf

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// A policy outlives the daemon, and the next one knows it: it denies while there is
// none, and goes on counting.
// edge D40
func TestKernelPolicyAdopted(t *testing.T) {
	p := newPlane(t, small)
	p.force(7, tablePolicy(PolicyDeny, true, "127.0.0.0/8", "fd00::/8"))
	c := kerneltest.Start(t, p.root)
	const direct = "127.0.0.1:9"
	failsWith(t, "connect", c.UDP(direct).Connect(direct), unix.EPERM)
	before, err := p.Dump()
	if err != nil {
		t.Fatal(err)
	}
	store := inStore(t, p.Datapath)
	if err := p.Close(); err != nil { // killed
		t.Fatal(err)
	}
	failsWith(t, "connect while there is no daemon", c.UDP(direct).Connect(direct), unix.EPERM)
	d, err := Adopt(store, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.Datapath = d
	after, err := d.Dump()
	if err != nil {
		t.Fatal(err)
	}
	samePrefix := gocmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := gocmp.Diff(before.Policy, after.Policy, samePrefix); diff != "" || before.PolicyWord != after.PolicyWord || before.PolicySum != after.PolicySum {
		t.Errorf("adopted %v, was %v:\n%s", after.PolicyWord, before.PolicyWord, diff)
	}
	failsWith(t, "connect after adoption", c.UDP(direct).Connect(direct), unix.EPERM)
	if hits, err := p.RuleHits(); err != nil || len(hits) != 1 || hits[0] != 3 {
		t.Errorf("the rule has decided %v, %v", hits, err)
	}
}

// A ring with a polling thread acts for the process that made it: a child in a
// group that may not, which inherits the ring of one that may, has its parent
// connect, under the parent's group. That is a way past policy for two processes
// that want it; in the other direction it is none.
// threat P3
func TestKernelPolicyInheritedRing(t *testing.T) {
	kerneltest.NeedsUring(t)
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:53"
	v := p.vip("a", vip).to(a.Addr.String())
	poor, rich := p.newGroup("poor", true), p.newGroup("rich", true)
	slices := map[uint32]*kerneltest.Cgroup{poor: p.root.Make(t, "poor"), rich: p.root.Make(t, "rich")}
	p.mapTo(slices[poor], poor, 0)
	p.mapTo(slices[rich], rich, 0)
	p.force(1, tablePolicy(PolicyDeny, false, "10.96.0.0/16"))

	parent := kerneltest.Start(t, slices[rich])
	s := parent.TCP(vip)
	err := s.ConnectByHeir(vip, slices[poor])
	succeeds(t, "connect at the word of a child in a group that may not", err)
	answers(t, "through an inherited ring", s, "a")
	parent = kerneltest.Start(t, slices[poor])
	failsWith(t, "connect at the word of a child in a group that may", parent.TCP(vip).ConnectByHeir(vip, slices[rich]), unix.EPERM)
	n := p.counters()
	if c := n.Pairs[ViewKey{v.cell, rich}]; c.Connects != 1 || c.Denied != 0 {
		t.Errorf("of the group that may: %+v", c)
	}
	if c := n.Pairs[ViewKey{v.cell, poor}]; c.Connects != 0 || c.Denied != 1 {
		t.Errorf("of the group that may not: %+v", c)
	}
}

// Packet sockets are no sockets of a family that has hooks: a strict group may make
// them, where the process has the privilege.
// threat P6
func TestKernelPolicyPacketSockets(t *testing.T) {
	_, _, in, out := strictPlane(t)
	for name, family := range map[string]int{"AF_PACKET": unix.AF_PACKET, "AF_VSOCK": unix.AF_VSOCK} {
		_, outside := out.Socket(family, unix.SOCK_DGRAM, 0)
		_, inside := in.Socket(family, unix.SOCK_DGRAM, 0)
		if inside != outside {
			t.Errorf("%s: %v in a strict group, %v outside", name, inside, outside)
		}
		if outside != nil && family == unix.AF_PACKET {
			t.Errorf("%s, as root: %v", name, outside)
		}
	}
}

// systemd's IPAddressDeny= is a program that looks at packets: one that denies the
// VIP's address lets everything through, one that denies the backend's nothing. It
// stays where it is.
// edge D46, edge D43
func TestKernelPacketFilterSeesBackend(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.3:0")
	const vip = "10.96.0.10:53"
	p.vip("a", vip+"/udp").to(a.Addr.String())
	for address, arrives := range map[string]bool{"10.96.0.10": true, "127.0.0.3": false} {
		child := p.root.Make(t, "to-"+address)
		denied := netip.MustParseAddr(address).As4()
		// return the packet's destination is another address
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "GPL",
			Instructions: asm.Instructions{
				asm.Mov.Imm(asm.R2, 16), // of the IPv4 header
				asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8),
				asm.Mov.Imm(asm.R4, 4),
				asm.FnSkbLoadBytes.Call(),
				asm.LoadMem(asm.R1, asm.RFP, -8, asm.Word),
				asm.Mov.Imm(asm.R0, 1),
				asm.LoadImm(asm.R2, int64(uint32(denied[0])|uint32(denied[1])<<8|uint32(denied[2])<<16|uint32(denied[3])<<24), asm.DWord),
				asm.JNE.Reg(asm.R1, asm.R2, "out"),
				asm.Mov.Imm(asm.R0, 0),
				asm.Return().WithSymbol("out"),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer prog.Close()
		l, err := link.AttachCgroup(link.CgroupOptions{Path: child.Open(t).Name(), Attach: ebpf.AttachCGroupInetEgress, Program: prog})
		if err != nil {
			t.Fatal(err)
		}
		s := kerneltest.Start(t, child).UDP(vip)
		succeeds(t, "connect", s.Connect(vip))
		if arrives {
			succeeds(t, "send past a filter of "+address, s.Send("x"))
			answersFrom(t, "past a filter of "+address, s, "a", vip)
		} else {
			failsWith(t, "send past a filter of "+address, s.Send("x"), unix.EPERM)
		}
		if err := p.Attach(p.dir); err != nil {
			t.Fatal(err)
		}
		if info, err := l.Info(); err != nil || info.Cgroup() == nil || info.Cgroup().CgroupId == 0 {
			t.Errorf("the filter is gone: %+v, %v", info, err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
