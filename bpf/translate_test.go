package bpf

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/internal/kerneltest"
	"golang.org/x/sys/unix"
)

// check* are the shortest way to say what a client should see.

func peerIs(t *testing.T, what string, s *kerneltest.Socket, want string) {
	t.Helper()
	if got, err := s.Peer(); err != nil || got != want {
		t.Errorf("%s: getpeername says %q, %v; want %s", what, got, err, want)
	}
}

func answers(t *testing.T, what string, s *kerneltest.Socket, want string) {
	t.Helper()
	if got, err := s.Receive(); err != nil || got != want+"\n" {
		t.Errorf("%s: answer %q, %v; want %s", what, got, err, want)
	}
}

func answersFrom(t *testing.T, what string, s *kerneltest.Socket, want, from string) {
	t.Helper()
	got, addr, err := s.ReceiveFrom()
	if err != nil || got != want+"\n" || addr != from {
		t.Errorf("%s: answer %q from %q, %v; want %s from %s", what, got, addr, err, want, from)
	}
}

func succeeds(t *testing.T, what string, err error) bool {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	return err == nil
}

func failsWith(t *testing.T, what string, err error, want unix.Errno) {
	t.Helper()
	if err != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// TestKernelTranslates walks every family and both protocols: what arrives
// where, and which names the client sees. Ports above 32767 and addresses with
// high bits are among them.
func TestKernelTranslates(t *testing.T) {
	p := newPlane(t, small)
	c := kerneltest.Start(t, p.root)

	families := []struct {
		name, vip, backend string
		mapped             bool // the client uses the VIP's v4-mapped form
	}{
		{"IPv4", "10.96.0.10:80", "127.0.0.1:0", false},
		{"IPv4 high", "203.0.113.250:65535", "198.51.100.254:40001", false}, // edge D20
		{"IPv6", "[fd00:96::10]:80", "[::1]:0", false},                      // edge D19
		{"IPv6 high", "[fdff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]:65535", "[fd00::ffff:fffe]:40002", false},
		{"mapped", "10.96.0.11:80", "127.0.0.1:0", true}, // edge D11
	}
	for _, f := range families {
		server := kerneltest.Serve(t, f.name, f.backend)
		p.vip(f.name, f.vip).to(server.Addr.String())
		p.vip(f.name+" udp", f.vip+"/udp").to(server.Addr.String())
		vip := f.vip
		if f.mapped {
			vip = mapped(vip)
		}

		tcp := c.TCP(vip) // edge D1
		if succeeds(t, f.name+": connect", tcp.Connect(vip)) {
			answers(t, f.name+": TCP", tcp, f.name)
			peerIs(t, f.name+": TCP", tcp, vip)
		}
		tcp.Close()

		udp := c.UDP(vip) // edge D2
		if succeeds(t, f.name+": connect UDP", udp.Connect(vip)) {
			peerIs(t, f.name+": UDP", udp, vip)
			succeeds(t, f.name+": send", udp.Send("x"))
			answersFrom(t, f.name+": connected UDP", udp, f.name, vip)
			succeeds(t, f.name+": send", udp.Send("x"))
			answers(t, f.name+": connected UDP, NULL address", udp, f.name) // edge D4
		}
		udp.Close()

		free := c.UDP(vip) // edge D3
		succeeds(t, f.name+": sendto", free.SendTo("x", vip, 0))
		answersFrom(t, f.name+": sendto", free, f.name, vip)
		n, err := free.SendMany("x", vip, vip, vip)
		if n != 3 || err != nil {
			t.Errorf("%s: sendmmsg sent %d, %v", f.name, n, err)
		}
		for range n {
			answersFrom(t, f.name+": sendmmsg", free, f.name, vip)
		}
		succeeds(t, f.name+": sendto", free.SendTo("x", vip, 0))
		answers(t, f.name+": sendto, NULL address", free, f.name) // edge D4
		free.Close()
	}
	if s := p.stats(); s != (Stats{}) {
		t.Errorf("statistics of what should not happen: %+v", s)
	}
}

func mapped(addr string) string {
	a := netip.MustParseAddrPort(addr)
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port()).String()
}

// An AF_INET6 socket with an AF_INET sockaddr. The kernel takes one for UDP
// sendto and for connect of UDP; TCP refuses. // edge D12
func TestKernelInetAddressOnInet6Socket(t *testing.T) {
	p := newPlane(t, small)
	server := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:53"
	p.vip("dns", vip+"/udp").to(server.Addr.String())
	c := kerneltest.Start(t, p.root)

	s := c.MustSocket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if succeeds(t, "connect", s.Connect(vip)) {
		succeeds(t, "send", s.Send("x"))
		answersFrom(t, "connected", s, "a", mapped(vip))
		peerIs(t, "connected", s, mapped(vip))
	}
	free := c.MustSocket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	succeeds(t, "sendto", free.SendTo("x", vip, 0))
	answersFrom(t, "sendto", free, "a", mapped(vip))
}

// A connected socket sends to another VIP: each keeps its name. // edge D5
func TestKernelConnectedSendsElsewhere(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	b := kerneltest.Serve(t, "b", "127.0.0.1:0")
	const vipA, vipB = "10.96.0.10:53", "10.96.0.11:53"
	p.vip("a", vipA+"/udp").to(a.Addr.String())
	p.vip("b", vipB+"/udp").to(b.Addr.String())
	s := kerneltest.Start(t, p.root).UDP(vipA)

	succeeds(t, "connect", s.Connect(vipA))
	succeeds(t, "sendto", s.SendTo("x", vipB, 0))
	peerIs(t, "after sendto", s, vipA)
	// A connected socket receives from its peer alone, so B's answer is seen
	// once it is connected no more; A's was not asked for.
	succeeds(t, "send", s.Send("x"))
	answersFrom(t, "connected", s, "a", vipA)
	// Where both have one backend, the answer has the name that was used last.
	const vipC = "10.96.0.12:53"
	p.vip("c", vipC+"/udp").to(a.Addr.String())
	succeeds(t, "sendto", s.SendTo("x", vipC, 0))
	answersFrom(t, "connected, asked for by another name", s, "a", vipC)
	peerIs(t, "after sendto", s, vipA)

	succeeds(t, "disconnect", s.Disconnect())
	succeeds(t, "sendto", s.SendTo("x", vipB, 0))
	answersFrom(t, "unconnected", s, "b", vipB)
}

// Nothing of a connection is left when the socket takes another. // edge D6 D7
func TestKernelReconnect(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:53"
	p.vip("a", vip+"/udp").to(a.Addr.String())
	p.vip("a tcp", vip).to(a.Addr.String())
	c := kerneltest.Start(t, p.root)

	s := c.UDP(vip)
	succeeds(t, "connect", s.Connect(vip))
	succeeds(t, "disconnect", s.Disconnect())
	if peer, err := s.Peer(); err != unix.ENOTCONN {
		t.Errorf("peer of a disconnected socket: %s, %v", peer, err)
	}
	succeeds(t, "sendto", s.SendTo("x", a.Addr.String(), 0))
	answersFrom(t, "the backend itself after disconnect", s, "a", a.Addr.String())

	succeeds(t, "connect", s.Connect(vip))
	peerIs(t, "through the VIP", s, vip)
	succeeds(t, "connect", s.Connect(a.Addr.String()))
	peerIs(t, "then directly", s, a.Addr.String())
	succeeds(t, "send", s.Send("x"))
	answersFrom(t, "directly", s, "a", a.Addr.String())
	succeeds(t, "connect", s.Connect(vip))
	peerIs(t, "through the VIP again", s, vip)

	tcp := c.TCP(vip)
	succeeds(t, "connect", tcp.Connect(vip))
	peerIs(t, "TCP through the VIP", tcp, vip)
	succeeds(t, "disconnect", tcp.Disconnect())
	succeeds(t, "connect", tcp.Connect(a.Addr.String()))
	peerIs(t, "TCP directly", tcp, a.Addr.String())
}

// Two VIPs with one backend: each connected socket knows its own; on one
// unconnected socket, another backend is chosen where there is one, else the
// last VIP wins. // edge D8
func TestKernelSharedBackend(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	b := kerneltest.Serve(t, "b", "127.0.0.1:0")
	const vip1, vip2 = "10.96.0.10:53", "10.96.0.11:53"
	one := p.vip("one", vip1+"/udp").to(a.Addr.String())
	p.vip("two", vip2+"/udp").to(a.Addr.String())
	c := kerneltest.Start(t, p.root)

	s1, s2 := c.UDP(vip1), c.UDP(vip2)
	for s, vip := range map[*kerneltest.Socket]string{s1: vip1, s2: vip2} {
		succeeds(t, "connect", s.Connect(vip))
		succeeds(t, "send", s.Send("x"))
		peerIs(t, "connected", s, vip)
		answersFrom(t, "connected", s, "a", vip)
	}

	s := c.UDP(vip1)
	succeeds(t, "sendto", s.SendTo("x", vip1, 0))
	answersFrom(t, "first VIP", s, "a", vip1)
	succeeds(t, "sendto", s.SendTo("x", vip2, 0))
	answersFrom(t, "second VIP, same backend", s, "a", vip2)

	// A socket that connects means what it connects to, whatever it sent before.
	succeeds(t, "connect", s.Connect(vip1))
	succeeds(t, "send", s.Send("x"))
	answersFrom(t, "connected after sendto", s, "a", vip1)
	peerIs(t, "connected after sendto", s, vip1)

	// Nor does a datagram to another backend bring an older name back.
	const vip3 = "10.96.0.12:53"
	p.vip("three", vip3+"/udp").to(b.Addr.String())
	succeeds(t, "sendto", s.SendTo("x", vip3, 0))
	succeeds(t, "send", s.Send("x"))
	answersFrom(t, "connected, another asked", s, "a", vip1)

	// With a choice, the second VIP's backend is kept apart from the first's.
	one.to(a.Addr.String(), b.Addr.String())
	s = c.UDP(vip1)
	succeeds(t, "sendto", s.SendTo("x", vip2, 0))
	answersFrom(t, "second VIP", s, "a", vip2)
	apart := 0
	const tries = 20
	for range tries {
		s := c.UDP(vip1)
		succeeds(t, "sendto", s.SendTo("x", vip2, 0))
		succeeds(t, "sendto", s.SendTo("x", vip1, 0))
		names := map[string]bool{}
		for range 2 {
			_, from, err := s.ReceiveFrom()
			succeeds(t, "receive", err)
			names[from] = true
		}
		if names[vip1] && names[vip2] {
			apart++
		}
		s.Close()
	}
	// Four choices at random find the other backend 15 times of 16.
	if apart < tries*3/4 {
		t.Errorf("two VIPs told apart %d times of %d", apart, tries)
	}
}

// A removed VIP, or another under its index, is never named. // edge D9
func TestKernelRemovedVIP(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:53"
	v := p.vip("a", vip+"/udp").to(a.Addr.String())
	p.vip("tcp", vip)
	index := v.frontends[frontendKey(vip+"/udp")]
	c := kerneltest.Start(t, p.root)

	s, free := c.UDP(vip), c.UDP(vip)
	succeeds(t, "connect", s.Connect(vip))
	succeeds(t, "sendto", free.SendTo("x", vip, 0))
	answersFrom(t, "before", free, "a", vip)
	succeeds(t, "sendto", free.SendTo("x", vip, 0)) // its answer waits until the VIP is gone
	if err := waitSeen(a, "x", 2); err != nil {
		t.Fatal(err)
	}

	v.remove()
	peerIs(t, "connected, VIP removed", s, a.Addr.String())
	answersFrom(t, "unconnected, VIP removed", free, "a", a.Addr.String())
	if n := p.stats().StaleFrontend; n != 2 {
		t.Errorf("%d names declined, want 2", n)
	}

	other := "10.96.0.99:53"
	p.apply(
		SetFrontendRef{index, FrontendRef{Cell: v.cell, Gen: 2}},
		PutFrontend{frontendKey(other + "/udp"), index},
	)
	peerIs(t, "connected, index reused", s, a.Addr.String())
}

// The VIP itself is the backend. // edge D10
func TestKernelIdentity(t *testing.T) {
	p := newPlane(t, small)
	for _, vip := range []string{"192.0.2.7:8080", "[2001:db8::7]:8080"} {
		kerneltest.Serve(t, "self", vip)
		p.vip("tcp"+vip[:3], vip).to(vip)
		p.vip("udp"+vip[:3], vip+"/udp").to(vip)
		c := kerneltest.Start(t, p.root)
		tcp, udp, free := c.TCP(vip), c.UDP(vip), c.UDP(vip)
		succeeds(t, "connect", tcp.Connect(vip))
		answers(t, "TCP", tcp, "self")
		peerIs(t, "TCP", tcp, vip)
		succeeds(t, "connect", udp.Connect(vip))
		succeeds(t, "send", udp.Send("x"))
		answersFrom(t, "UDP", udp, "self", vip)
		peerIs(t, "UDP", udp, vip)
		succeeds(t, "sendto", free.SendTo("x", vip, 0))
		answersFrom(t, "sendto", free, "self", vip)
	}
}

// A v4-mapped connected socket's plain send calls the sendmsg program with the
// backend's address: where that is a frontend too, it is not translated again.
// threat P8, edge D11
func TestKernelMappedSendIsNotTranslatedTwice(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	b := kerneltest.Serve(t, "b", "127.0.0.1:0")
	const vip = "10.96.0.10:53"
	p.vip("a", vip+"/udp").to(a.Addr.String())
	p.vip("backend", a.Addr.String()+"/udp").to(b.Addr.String())
	s := kerneltest.Start(t, p.root).UDP(mapped(vip))
	succeeds(t, "connect", s.Connect(mapped(vip)))
	succeeds(t, "send", s.Send("x"))
	answersFrom(t, "mapped", s, "a", mapped(vip))
	peerIs(t, "mapped", s, mapped(vip))
}

// TCP Fast Open connects in sendto. // edge D15, threat P1
func TestKernelFastOpen(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:80"
	p.vip("a", vip).to(a.Addr.String())
	c := kerneltest.Start(t, p.root)

	s := c.TCP(vip)
	succeeds(t, "sendto(MSG_FASTOPEN)", s.SendTo("hello", vip, unix.MSG_FASTOPEN))
	answersAtLeast(t, "fast open", s, "a")
	peerIs(t, "fast open", s, vip)

	s = c.TCP(vip)
	if err := s.SetOption(unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil {
		t.Fatal(err)
	}
	succeeds(t, "connect", s.Connect(vip))
	succeeds(t, "send", s.Send("hello"))
	answersAtLeast(t, "fast open connect", s, "a")
	peerIs(t, "fast open connect", s, vip)
}

// answersAtLeast lets the echo of what was sent come with the name.
func answersAtLeast(t *testing.T, what string, s *kerneltest.Socket, want string) {
	t.Helper()
	if got, err := s.Receive(); err != nil || !strings.HasPrefix(got, want+"\n") {
		t.Errorf("%s: answer %q, %v; want %s", what, got, err, want)
	}
}

// MPTCP: the program sees the first subflow, getpeername the MPTCP socket, which
// has no state: it names the backend. // edge D14, threat P4
func TestKernelMPTCP(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:80"
	p.vip("a", vip).to(a.Addr.String())
	c := kerneltest.Start(t, p.root)
	s, err := c.Socket(unix.AF_INET, unix.SOCK_STREAM, ipprotoMPTCP)
	if err != nil {
		kerneltest.Lacks(t, "MPTCP", "5.6", err)
	}
	succeeds(t, "connect", s.Connect(vip))
	answers(t, "MPTCP", s, "a")
	peerIs(t, "MPTCP", s, a.Addr.String())
}

// What has no hook, or another protocol, is left alone. // edge D16, threat P5
func TestKernelOtherProtocols(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:80"
	p.vip("a", vip).to(a.Addr.String())
	p.vip("a udp", vip+"/udp").to(a.Addr.String())
	kerneltest.AddAddress(t, "10.96.0.10")
	c := kerneltest.Start(t, p.root)

	icmp := c.MustSocket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	succeeds(t, "RAW connect", icmp.Connect(vip))
	peerIs(t, "RAW", icmp, vip)

	lite, err := c.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE)
	if err != nil {
		t.Logf("UDP-Lite: %v", err) // gone from the kernel at times
		return
	}
	succeeds(t, "UDP-Lite connect", lite.Connect(vip))
	peerIs(t, "UDP-Lite", lite, vip) // the address itself: not translated
	succeeds(t, "UDP-Lite send", lite.Send("lite"))
	failsWith(t, "UDP-Lite answer", second(lite.Receive()), unix.ECONNREFUSED)
	if a.Seen("lite") != 0 {
		t.Error("UDP-Lite reached the backend")
	}
}

func second[T any](_ T, err error) error { return err }

// One address, two services; and a port that nobody configured. // edge D17 D18
func TestKernelPortsAndProtocols(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	b := kerneltest.Serve(t, "b", "127.0.0.1:0")
	direct := kerneltest.Serve(t, "direct", "10.96.0.10:81")
	const vip = "10.96.0.10:80"
	p.vip("tcp", vip).to(a.Addr.String())
	c := kerneltest.Start(t, p.root)

	udp := c.UDP(vip)
	succeeds(t, "connect UDP", udp.Connect(vip))
	succeeds(t, "send", udp.Send("x"))
	failsWith(t, "UDP, of which there is no service", second(udp.Receive()), unix.ECONNREFUSED)
	udp.Close()

	p.vip("udp", vip+"/udp").to(b.Addr.String())
	tcp, udp := c.TCP(vip), c.UDP(vip)
	succeeds(t, "connect", tcp.Connect(vip))
	answers(t, "TCP", tcp, "a")
	succeeds(t, "connect", udp.Connect(vip))
	succeeds(t, "send", udp.Send("x"))
	answers(t, "UDP", udp, "b")

	other := c.TCP(vip)
	succeeds(t, "another port", other.Connect(direct.Addr.String()))
	answers(t, "another port", other, "direct")
	peerIs(t, "another port", other, direct.Addr.String())
	failsWith(t, "a port with nothing", c.TCP(vip).Connect("10.96.0.10:82"), unix.ECONNREFUSED)

	// reject_unknown_ports: nothing gets there, whatever listens, but from those
	// who do not see the VIP.
	p.vip("refusing", "10.96.0.10:443", "10.96.0.10:0", "10.96.0.10:0/udp").to(a.Addr.String())
	failsWith(t, "another port", c.TCP(vip).Connect(direct.Addr.String()), unix.ECONNREFUSED)
	failsWith(t, "another port, UDP", c.UDP(vip).Connect("10.96.0.10:82"), unix.ECONNREFUSED)
	failsWith(t, "another port, datagram", c.UDP(vip).SendTo("x", "10.96.0.10:82", 0), unix.ECONNREFUSED)
	tcp = c.TCP(vip)
	succeeds(t, "a frontend of another VIP", tcp.Connect(vip))
	answers(t, "a frontend of another VIP", tcp, "a")
	alone := p.root.Make(t, "alone.slice")
	p.mapTo(alone, p.newGroup("alone", false), 0)
	if err := c.Enter(alone); err != nil {
		t.Fatal(err)
	}
	other = c.TCP(vip)
	succeeds(t, "translate = false", other.Connect(direct.Addr.String()))
	answers(t, "translate = false", other, "direct")
}

// A client that is the chosen backend reaches itself. // edge D30
func TestKernelHairpin(t *testing.T) {
	p := newPlane(t, small)
	for vip, backend := range map[string]string{
		"10.96.0.10:80":    "192.0.2.8:8080",
		"[fd00:96::10]:80": "[2001:db8::8]:8080",
	} {
		s := kerneltest.Serve(t, "self", backend)
		p.vip(vip, vip).to(s.Addr.String())
		c := kerneltest.Start(t, p.root)
		tcp := c.TCP(vip)
		// The client is bound to the backend's own address.
		succeeds(t, "connect", tcp.Connect(vip))
		answers(t, vip, tcp, "self")
		peerIs(t, vip, tcp, vip)
	}
}

// IPv6 switched off in the namespace: IPv4 works; a hook that the kernel does not
// have is named and is no error. // edge D13
func TestKernelWithoutIPv6(t *testing.T) {
	before := attachLink
	t.Cleanup(func() { attachLink = before })
	attachLink = refuseIPv6(before)

	p := newPlane(t, small)
	off := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
	if off != nil && !errors.Is(off, os.ErrNotExist) {
		t.Fatal(off)
	}
	server := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:80"
	p.vip("a", vip).to(server.Addr.String())
	missing := p.Missing()
	if len(missing) != 4 {
		t.Errorf("missing: %v, want the four hooks of IPv6", missing)
	}
	if err := p.Check(); err != nil {
		t.Errorf("check: %v", err)
	}
	s := kerneltest.Start(t, p.root).TCP(vip)
	succeeds(t, "connect", s.Connect(vip))
	answers(t, "IPv4", s, "a")
	peerIs(t, "IPv4", s, vip)
}
