package bpf

import (
	"fmt"
	"math/bits"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// callTo is one way to an address, from a socket of a family.
type callTo struct {
	name   string
	domain int
	typ    int
	to     string // an address
	bound  string // an address; "" for none
	call   func(s *kerneltest.Socket, to string) error
}

// unspecifiedCalls are the ways in which a call names no address, and the kernel
// makes here of it, here6 or the loopback.
func unspecifiedCalls(here, here6 string) (out []callTo) {
	connects := func(s *kerneltest.Socket, to string) error { return s.Connect(to) }
	sends := func(s *kerneltest.Socket, to string) error { return s.SendTo("x", to, 0) }
	opens := func(s *kerneltest.Socket, to string) error { return s.SendTo("x", to, unix.MSG_FASTOPEN) }
	for _, c := range []struct {
		name string
		typ  int
		call func(*kerneltest.Socket, string) error
	}{
		{"connect TCP", unix.SOCK_STREAM, connects},
		{"fast open", unix.SOCK_STREAM, opens},
		{"connect UDP", unix.SOCK_DGRAM, connects},
		{"sendto", unix.SOCK_DGRAM, sends},
	} {
		for _, a := range []struct {
			domain    int
			to, bound string
		}{
			{unix.AF_INET, "0.0.0.0", ""},
			{unix.AF_INET, "0.0.0.0", here},
			{unix.AF_INET6, "::", ""},
			{unix.AF_INET6, "::", here6},
			{unix.AF_INET6, "::", "::ffff:" + here},
			{unix.AF_INET6, "::ffff:0.0.0.0", ""},
			{unix.AF_INET6, "::ffff:0.0.0.0", "::ffff:" + here},
		} {
			out = append(out, callTo{fmt.Sprintf("%s to %s, bound to %q", c.name, a.to, a.bound), a.domain, c.typ, a.to, a.bound, c.call})
		}
	}
	return out
}

func (c callTo) from(client *kerneltest.Client, port uint16) (*kerneltest.Socket, error) {
	s := client.MustSocket(c.domain, c.typ, 0)
	if c.bound != "" {
		if err := s.Bind(netip.AddrPortFrom(netip.MustParseAddr(c.bound), 0).String()); err != nil {
			return s, fmt.Errorf("bind: %w", err)
		}
	}
	return s, c.call(s, netip.AddrPortFrom(netip.MustParseAddr(c.to), port).String())
}

// A call to 0.0.0.0 or :: is one to an address of the host's own, which the kernel
// puts in its place after the hooks: policy is asked about that one.
// threat P12
func TestKernelPolicyUnspecified(t *testing.T) {
	p := newPlane(t, small)
	const here, here6 = "10.1.0.5", "fd00:1::5"
	kerneltest.AddAddress(t, here)
	kerneltest.AddAddress(t, here6)
	const port = 7777
	kerneltest.Serve(t, "all", fmt.Sprintf("[::]:%d", port)) // of both families
	poor, rich := p.newGroup("poor", true), p.newGroup("rich", true)
	slices := map[uint32]*kerneltest.Cgroup{poor: p.root.Make(t, "poor"), rich: p.root.Make(t, "rich")}
	p.mapTo(slices[poor], poor, 0)
	p.mapTo(slices[rich], rich, 0)
	may, mayNot := kerneltest.Start(t, slices[rich]), kerneltest.Start(t, slices[poor])
	calls := unspecifiedCalls(here, here6)
	ask := func(what string, c *kerneltest.Client, want func(callTo) error) map[string]string {
		t.Helper()
		peers := map[string]string{}
		for _, call := range calls {
			s, err := call.from(c, port)
			if err != want(call) {
				t.Errorf("%s: %s: %v, want %v", what, call.name, err, want(call))
			}
			if err == nil && call.typ == unix.SOCK_STREAM {
				if _, err := s.Receive(); err != nil {
					t.Errorf("%s: %s: %v", what, call.name, err)
				}
				peers[call.name], _ = s.Peer()
			}
			s.Close()
		}
		return peers
	}
	ok := func(callTo) error { return nil }
	bare := ask("without a policy", mayNot, ok)
	p.force(1, tablePolicy(PolicyDeny, false, "127.0.0.0/8", "::1/128", here+"/32", here6+"/128"))
	ask("denied all", mayNot, func(callTo) error { return unix.EPERM })
	for name, peer := range ask("may", may, ok) {
		if peer != bare[name] {
			t.Errorf("%s: the peer is %s, and %s without a policy", name, peer, bare[name])
		}
	}
	// What the kernel puts there is what is asked about, and nothing else.
	p.force(4000, tablePolicy(PolicyDeny, false, here+"/32"))
	ask("denied one address", mayNot, func(c callTo) error {
		if c.to != "::" && c.bound != "" {
			return unix.EPERM
		}
		return nil
	})
	if s := p.stats(); s != (Stats{}) {
		t.Errorf("statistics of what should not happen: %+v", s)
	}
}

// Of a socket that is bound to a device the kernel makes of 0.0.0.0 the device's
// address, which no program knows: with a policy it is the loopback here, too.
// threat P12
func TestKernelPolicyUnspecifiedOnDevice(t *testing.T) {
	p := newPlane(t, small)
	const here, port = "10.1.0.5", 7777
	device := kerneltest.AddDevice(t, here+"/24")
	a := kerneltest.Serve(t, "a", fmt.Sprintf("0.0.0.0:%d", port))
	c := kerneltest.Start(t, p.root)
	to := fmt.Sprintf("0.0.0.0:%d", port)
	const bindToIndex, unicastIf = 62, 50 // SO_BINDTOIFINDEX, IP_UNICAST_IF
	send := func(level, option, value int) error {
		s := c.UDP(to)
		defer s.Close()
		if err := s.SetOption(level, option, value); err != nil {
			t.Fatal(err)
		}
		return s.SendTo("x", to, 0)
	}
	big := int(bits.ReverseBytes32(uint32(device)))
	succeeds(t, "bound to a device, without a policy", send(unix.SOL_SOCKET, bindToIndex, device))
	succeeds(t, "for a device, without a policy", send(unix.IPPROTO_IP, unicastIf, big))
	if err := waitSeen(a, "x", 2); err != nil {
		t.Fatal(err)
	}
	p.force(1, tablePolicy(PolicyDeny, false, here+"/32"))
	for what, err := range map[string]error{
		"bound to a device": send(unix.SOL_SOCKET, bindToIndex, device),
		"for a device":      send(unix.IPPROTO_IP, unicastIf, big),
	} {
		t.Logf("%s: %v", what, err)
	}
	s := c.UDP(to)
	succeeds(t, "the last", s.SendTo("last", to, 0))
	if err := waitSeen(a, "last", 1); err != nil {
		t.Fatal(err)
	}
	if n := a.Seen("x"); n != 2 {
		t.Errorf("%d datagrams got to a denied address", n-2)
	}
}
