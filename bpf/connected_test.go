package bpf

import (
	"fmt"
	"testing"

	"github.com/slicelb/slicelb/internal/kerneltest"
	"golang.org/x/sys/unix"
)

// ways are those in which a socket can name a service: a socket of IPv4's, of IPv6's
// for IPv4 and of IPv6's.
var ways = []struct {
	name, vip, local string
	as               func(string) string
}{
	{"IPv4", "10.96.0.10:53", "127.0.0.1:0", func(s string) string { return s }},
	{"mapped", "10.96.0.11:53", "127.0.0.1:0", mapped},
	{"IPv6", "[fd00:96::10]:53", "[::1]:0", func(s string) string { return s }},
}

// serveMany starts servers that answer with the number that they have in the list.
func serveMany(t *testing.T, n int, local string) (servers []*kerneltest.Server, addresses []string) {
	t.Helper()
	for i := range n {
		s := kerneltest.Serve(t, fmt.Sprint(i), local)
		servers, addresses = append(servers, s), append(addresses, s.Addr.String())
	}
	return servers, addresses
}

// A connected socket's datagram to its own VIP goes to its own backend, since the
// kernel drops what another answers; once that is down, to one that is up.
// edge D49
func TestKernelConnectedSendsToItsVIP(t *testing.T) {
	p := newPlane(t, small)
	c := kerneltest.Start(t, p.root)
	for _, w := range ways {
		servers, addresses := serveMany(t, 8, w.local)
		v := p.vip(w.name, w.vip+"/udp").to(addresses...)
		vip := w.as(w.vip)

		s := c.UDP(vip)
		// What the socket chose before it was connected is no reason to leave its peer.
		succeeds(t, w.name+": sendto before connect", s.SendTo("early", vip, 0))
		if _, from, err := s.ReceiveFrom(); err != nil || from != vip {
			t.Errorf("%s: answer from %q, %v", w.name, from, err)
		}
		var own string
		for {
			succeeds(t, w.name+": connect", s.Connect(vip))
			succeeds(t, w.name+": send", s.Send("plain"))
			got, err := s.Receive()
			if err != nil {
				t.Fatal(err)
			}
			own = got[:1]
			if servers[own[0]-'0'].Seen("early") == 0 {
				break
			}
		}
		for range 3 {
			succeeds(t, w.name+": sendto", s.SendTo("x", vip, 0))
			answersFrom(t, w.name+": sendto its VIP", s, own, vip)
		}
		address := addresses[own[0]-'0']
		v.state(address, BackendDraining)
		succeeds(t, w.name+": sendto", s.SendTo("x", vip, 0))
		answersFrom(t, w.name+": its backend drains", s, own, vip)

		// The name that was used last is the sender's.
		p.vip(w.name+" same", w.vip[:len(w.vip)-2]+"55/udp").to(address)
		same := w.as(w.vip[:len(w.vip)-2] + "55")
		succeeds(t, w.name+": sendto", s.SendTo("x", same, 0))
		answersFrom(t, w.name+": by another VIP's name", s, own, same)
		succeeds(t, w.name+": sendto", s.SendTo("x", vip, 0))
		answersFrom(t, w.name+": by its own again", s, own, vip)

		seen := servers[own[0]-'0'].Seen("x")
		v.state(address, BackendDown)
		succeeds(t, w.name+": sendto", s.SendTo("late", vip, 0))
		if err := until(w.name+": another backend gets it", func() bool {
			n := 0
			for _, s := range servers {
				n += s.Seen("late")
			}
			return n == 1
		}); err != nil {
			t.Error(err)
		}
		if n := servers[own[0]-'0']; n.Seen("late") != 0 || n.Seen("x") != seen {
			t.Errorf("%s: a backend that is down got a datagram", w.name)
		}
		s.Close()

		// Another frontend of the same VIP is another name.
		one, two := w.vip[:len(w.vip)-2]+"56", w.vip[:len(w.vip)-2]+"57"
		p.vip(w.name+" two", one+"/udp", two+"/udp").to(addresses[0])
		s = c.UDP(vip)
		succeeds(t, w.name+": connect", s.Connect(w.as(one)))
		succeeds(t, w.name+": sendto", s.SendTo("x", w.as(two), 0))
		answersFrom(t, w.name+": sendto the other frontend", s, "0", w.as(two))
		s.Close()
	}
}

// A socket that is connected to an address is told that address, whatever it sends to a
// VIP before and afterwards. // edge D7
func TestKernelConnectsToBackendAfterSendTo(t *testing.T) {
	p := newPlane(t, small)
	c := kerneltest.Start(t, p.root)
	for _, w := range ways {
		a := kerneltest.Serve(t, "a", w.local)
		p.vip(w.name, w.vip+"/udp").to(a.Addr.String())
		vip, direct := w.as(w.vip), w.as(a.Addr.String())

		s := c.UDP(vip)
		succeeds(t, w.name+": sendto", s.SendTo("x", vip, 0))
		answersFrom(t, w.name+": sendto", s, "a", vip)
		succeeds(t, w.name+": connect", s.Connect(direct))
		peerIs(t, w.name+": connected", s, direct)
		succeeds(t, w.name+": send", s.Send("x"))
		answersFrom(t, w.name+": connected", s, "a", direct)
		succeeds(t, w.name+": sendto the VIP", s.SendTo("x", vip, 0))
		answersFrom(t, w.name+": connected, sendto the VIP", s, "a", direct)
		succeeds(t, w.name+": connect to the VIP", s.Connect(vip))
		succeeds(t, w.name+": send", s.Send("x"))
		answersFrom(t, w.name+": connected to the VIP", s, "a", vip)
	}
	if s := p.stats(); s != (Stats{}) {
		t.Errorf("statistics of what should not happen: %+v", s)
	}
}

// A socket without a peer that uses a VIP and then its backend's own address is told
// the VIP for both. // edge D50
func TestKernelSendsToVIPAndBackend(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:53"
	p.vip("a", vip+"/udp").to(a.Addr.String())
	c := kerneltest.Start(t, p.root)

	s := c.UDP(vip)
	succeeds(t, "sendto the backend", s.SendTo("x", a.Addr.String(), 0))
	answersFrom(t, "before the VIP was used", s, "a", a.Addr.String())
	succeeds(t, "sendto the VIP", s.SendTo("x", vip, 0))
	answersFrom(t, "the VIP", s, "a", vip)
	succeeds(t, "sendto the backend", s.SendTo("x", a.Addr.String(), 0))
	answersFrom(t, "the backend", s, "a", vip)
}

// A socket that was connected to an address before a VIP took it stays with its peer.
// The plain send of a v4-mapped one passes the send hook as if it named the address.
// edge D48, threat P8
func TestKernelPeerBecomesVIP(t *testing.T) {
	p := newPlane(t, small)
	c := kerneltest.Start(t, p.root)
	var sockets []*kerneltest.Socket
	for _, w := range ways {
		x, b := kerneltest.Serve(t, "x", w.local), kerneltest.Serve(t, "b", w.local)
		direct := w.as(x.Addr.String())
		s, before := c.UDP(direct), c.UDP(direct)
		succeeds(t, w.name+": connect", s.Connect(direct))
		succeeds(t, w.name+": connect", before.Connect(direct))

		v := p.vip(w.name, x.Addr.String()+"/udp") // nobody serves it: new calls are refused
		failsWith(t, w.name+": a new socket", c.UDP(direct).Connect(direct), unix.EHOSTUNREACH)
		for _, state := range []string{"no backend", "a backend"} {
			succeeds(t, w.name+": send", s.Send("x"))
			answersFrom(t, w.name+": send, "+state, s, "x", direct)
			succeeds(t, w.name+": sendto", s.SendTo("x", direct, 0))
			answersFrom(t, w.name+": sendto, "+state, s, "x", direct)
			v.to(b.Addr.String())
		}
		peerIs(t, w.name+": connected", s, direct)
		if n := p.counters().Cells[v.cell]; n != (Counters{Rejected: 1}) {
			t.Errorf("%s: counted for the VIP: %+v", w.name, n)
		}

		succeeds(t, w.name+": disconnect", s.Disconnect())
		succeeds(t, w.name+": sendto", s.SendTo("x", direct, 0))
		answersFrom(t, w.name+": sendto after disconnect", s, "b", direct)
		sockets = append(sockets, before)
	}
	// Policy is asked where there is a hook.
	p.force(1, tablePolicy(PolicyDeny, false, "127.0.0.0/8", "::1/128"))
	for i, want := range []error{nil, unix.EPERM, nil} {
		if err := sockets[i].Send("x"); err != want {
			t.Errorf("%s: send that policy denies: %v, want %v", ways[i].name, err, want)
		}
	}
}

// The error queue has no hook: it names the backend. // edge D51
func TestKernelErrorQueueNamesBackend(t *testing.T) {
	p := newPlane(t, small)
	c := kerneltest.Start(t, p.root)
	for _, w := range ways {
		nobody := w.local[:len(w.local)-1] + "9"
		p.vip(w.name, w.vip+"/udp").to(nobody)
		vip := w.as(w.vip)
		s := c.UDP(vip)
		for _, option := range [][2]int{{unix.IPPROTO_IP, unix.IP_RECVERR}, {unix.IPPROTO_IPV6, unix.IPV6_RECVERR}} {
			// IPv4's on a socket of IPv6's is for its mapped addresses.
			if err := s.SetOption(option[0], option[1], 1); err != nil && w.name != "IPv4" {
				t.Fatal(err)
			}
		}
		succeeds(t, w.name+": sendto", s.SendTo("x", vip, 0))
		if to, err := s.ReceiveError(); err != nil || to != w.as(nobody) {
			t.Errorf("%s: the error queue names %q, %v; want %s", w.name, to, err, w.as(nobody))
		}
	}
}
