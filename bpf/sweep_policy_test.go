package bpf

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// Policy denies what it has let connect: the sockets that a VIP sent are closed,
// where the VIP wants it, of the groups that may not any more. Whom a socket is
// counted for is who connected it.
// threat P10
func TestKernelTerminatesDenied(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		p := newPlane(t, small)
		a := kerneltest.Serve(t, "a", "127.0.0.1:0")
		a6 := kerneltest.Serve(t, "a", "[::1]:0")
		const vip, vip6, lax = "10.96.0.10:80", "[fd00:96::10]:80", "10.96.0.11:80"
		p.vip("db", vip, vip+"/udp").to(a.Addr.String())
		p.vip("db6", vip6, vip6+"/udp").to(a6.Addr.String())
		p.vip("lax", lax, lax+"/udp").to(a.Addr.String())
		traits(t, p, map[string]Traits{"db": all, "db6": all, "lax": {TerminateUDP: true}})
		poor, rich := p.newGroup("poor", true), p.newGroup("rich", true)
		slices := map[uint32]*kerneltest.Cgroup{poor: p.root.Make(t, "poor"), rich: p.root.Make(t, "rich")}
		p.mapTo(slices[poor], poor, 0)
		p.mapTo(slices[rich], rich, 0)
		mayNot, may := kerneltest.Start(t, slices[poor]), kerneltest.Start(t, slices[rich])

		closed, spared := map[string]*kerneltest.Socket{}, map[string]*kerneltest.Socket{}
		open := func(in map[string]*kerneltest.Socket, what string, c *kerneltest.Client, to string, typ int) {
			t.Helper()
			s := c.MustSocket(domain(to), typ, 0)
			in[what] = s
			if succeeds(t, what, s.Connect(to)); typ == unix.SOCK_STREAM {
				answers(t, what, s, "a")
			}
		}
		open(closed, "TCP", mayNot, vip, unix.SOCK_STREAM)
		open(closed, "UDP", mayNot, vip, unix.SOCK_DGRAM)
		open(closed, "mapped TCP", mayNot, mapped(vip), unix.SOCK_STREAM)
		open(closed, "mapped UDP", mayNot, mapped(vip), unix.SOCK_DGRAM)
		open(closed, "IPv6 TCP", mayNot, vip6, unix.SOCK_STREAM)
		open(closed, "IPv6 UDP", mayNot, vip6, unix.SOCK_DGRAM)
		open(closed, "UDP, of terminate = udp", mayNot, lax, unix.SOCK_DGRAM)
		open(spared, "TCP, of terminate = udp", mayNot, lax, unix.SOCK_STREAM)
		open(spared, "of who may", may, vip, unix.SOCK_STREAM)
		open(spared, "of who may, UDP", may, vip, unix.SOCK_DGRAM)
		open(spared, "direct", mayNot, a.Addr.String(), unix.SOCK_STREAM)
		// Handed over: the one who connected counts.
		open(spared, "connected by who may, in other hands", may, vip, unix.SOCK_STREAM)
		passed, err := spared["connected by who may, in other hands"].Pass(mayNot)
		succeeds(t, "pass", err)

		p.force(1, tablePolicy(PolicyAllow, false, "10.96.0.0/16", "fd00:96::/32"))
		if !gone(p) {
			t.Error("nobody says that there is another policy")
		}
		sweeps(t, "a policy that allows", p, 0)
		// What the group 2, rich, gets is an exception of tablePolicy's.
		p.force(4000, tablePolicy(PolicyDeny, false, "10.96.0.0/16", "fd00:96::/32"))
		if !gone(p) {
			t.Error("nobody says that there is another policy")
		}
		sweeps(t, "denied", p, len(closed))
		sweeps(t, "denied, again", p, 0)
		for what, s := range closed {
			wasClosed(t, what, s)
		}
		for what, s := range spared {
			if err := s.Send("x"); err != nil {
				t.Errorf("%s: send: %v", what, err)
			}
			if got, err := s.Receive(); err != nil {
				t.Errorf("%s: answer %q, %v", what, got, err)
			}
		}
		succeeds(t, "send by who has got it", passed.Send("x"))

		// A default that denies concerns VIPs; an index that is another group's, nobody.
		open(closed, "by default", may, vip, unix.SOCK_STREAM)
		p.apply(SetGroup{rich, Group{Name: "another", Translate: true}})
		byDefault := tablePolicy(PolicyAllow, true, "192.0.2.0/24")
		byDefault.Classes[rich] = PolicyClass{Class: 1, Deny: true}
		p.force(8000, byDefault)
		sweeps(t, "of a group whose index is another's", p, 0)
		p.apply(SetGroup{rich, Group{Name: "rich", Translate: true}})
		sweeps(t, "by default", p, 4)
		wasClosed(t, "by default", closed["by default"])
	})
}
