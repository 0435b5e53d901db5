package bpf

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// strictPlane has a group 1 that is strict, with the hook attached, a client in it
// and one outside.
func strictPlane(t *testing.T) (p *plane, slice *kerneltest.Cgroup, in, out *kerneltest.Client) {
	t.Helper()
	p = newPlane(t, small)
	p.apply(SetGroup{1, Group{Name: "strict", Translate: true, Strict: true}})
	slice = p.root.Make(t, "strict")
	p.mapTo(slice, 1, 0)
	p.Want(SockCreate)
	if err := p.Attach(p.dir); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	return p, slice, kerneltest.Start(t, slice), kerneltest.Start(t, p.root)
}

const ipprotoMPTCP = 262

// socketKinds are those that a kernel may have; kind is what one is told as.
var socketKinds = []struct {
	name       string
	typ, proto int
	families   []int
	ok         bool // a strict group may make it
	kind       string
	optional   bool // a module, or gone since: not every kernel has it
}{
	{name: "TCP", typ: unix.SOCK_STREAM, families: inet, ok: true},
	{name: "TCP by number", typ: unix.SOCK_STREAM, proto: unix.IPPROTO_TCP, families: inet, ok: true},
	{name: "UDP", typ: unix.SOCK_DGRAM, families: inet, ok: true},
	{name: "UDP by number", typ: unix.SOCK_DGRAM, proto: unix.IPPROTO_UDP, families: inet, ok: true},
	{name: "ping", typ: unix.SOCK_DGRAM, proto: unix.IPPROTO_ICMP, families: inet[:1], ok: true},
	{name: "ping 6", typ: unix.SOCK_DGRAM, proto: unix.IPPROTO_ICMPV6, families: inet[1:], ok: true},
	{name: "raw", typ: unix.SOCK_RAW, proto: unix.IPPROTO_RAW, families: inet, kind: "raw"},
	{name: "raw TCP", typ: unix.SOCK_RAW, proto: unix.IPPROTO_TCP, families: inet, kind: "raw"},
	{name: "raw UDP", typ: unix.SOCK_RAW, proto: unix.IPPROTO_UDP, families: inet, kind: "raw"},
	{name: "raw ICMP", typ: unix.SOCK_RAW, proto: unix.IPPROTO_ICMP, families: inet, kind: "raw"},
	{name: "raw ICMPv6", typ: unix.SOCK_RAW, proto: unix.IPPROTO_ICMPV6, families: inet[1:], kind: "raw"},
	{name: "MPTCP", typ: unix.SOCK_STREAM, proto: ipprotoMPTCP, families: inet, kind: "mptcp"},
	{name: "UDP-Lite", typ: unix.SOCK_DGRAM, proto: unix.IPPROTO_UDPLITE, families: inet, kind: "udplite", optional: true},
	{name: "SCTP", typ: unix.SOCK_STREAM, proto: unix.IPPROTO_SCTP, families: inet, kind: "sctp", optional: true},
	{name: "DCCP", typ: 6, proto: unix.IPPROTO_DCCP, families: inet, kind: "dccp", optional: true},
}

var inet = []int{unix.AF_INET, unix.AF_INET6}

// Sockets that no hook sees are refused to a strict group, and to no other; what
// is plain TCP, UDP or an echo request is not. Who was refused what is told.
// threat P4, threat P5, edge D44
func TestKernelPolicyStrict(t *testing.T) {
	p, slice, in, out := strictPlane(t)
	// Whoever may make ping sockets is the namespace's business, and nobody at first.
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0); err != nil {
		t.Fatal(err)
	}
	r, told := listening(t, p)
	watchFor(t, p, r, everything())
	refused := uint64(0)
	for _, s := range socketKinds {
		for _, family := range s.families {
			if _, err := out.Socket(family, s.typ, s.proto); err != nil {
				if !s.optional {
					t.Errorf("%s, family %d, outside: %v", s.name, family, err)
				} else {
					t.Logf("%s: not in this kernel: %v", s.name, err)
				}
				continue
			}
			_, err := in.Socket(family, s.typ, s.proto)
			if s.ok {
				succeeds(t, s.name, err)
				continue
			}
			failsWith(t, s.name, err, unix.EPERM)
			refused++
			d := next(t, told)
			if d.Told != Denied || d.Reason != NoHook || d.Group != 1 || d.Cgroup != slice.ID(t) || d.TGID != uint32(in.Pid) || d.Asked.IsValid() || d.VIP != 0 || d.Netns == 0 {
				t.Errorf("%s: told %+v", s.name, d)
			}
			if got := d.Making.String(); got != s.kind {
				t.Errorf("%s: told as %q, want %q", s.name, got, s.kind)
			}
		}
	}
	if n := p.stats().StrictRefused; n != refused {
		t.Errorf("%d sockets refused, %d counted", refused, n)
	}
}

// The hook is there only while it is wanted.
func TestKernelPolicyStrictHook(t *testing.T) {
	p, _, in, _ := strictPlane(t)
	raw := func() error {
		s, err := in.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		if err == nil {
			return s.Close()
		}
		return err
	}
	failsWith(t, "raw with the hook", raw(), unix.EPERM)
	p.Want()
	if err := p.Attach(p.dir); err != nil {
		t.Fatal(err)
	}
	succeeds(t, "raw without the hook", raw())
	p.Want(SockCreate)
	if err := p.Attach(p.dir); err != nil {
		t.Fatal(err)
	}
	failsWith(t, "raw with the hook again", raw(), unix.EPERM)
}
