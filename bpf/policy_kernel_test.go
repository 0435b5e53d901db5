package bpf

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/slicelb/slicelb/internal/kerneltest"
	"golang.org/x/sys/unix"
)

// tablePolicy says the same of all these networks, to any group, but nothing to
// the class of the group 2.
func tablePolicy(action PolicyAction, deny bool, networks ...string) *Policy {
	p := &Policy{
		Rules:   1,
		Classes: []PolicyClass{{Class: 1, Deny: deny}, {Class: 1, Deny: deny}, {Class: 2}},
		Rows:    []PolicyRow{{Action: action, Rule: 1, Except: []PolicyException{{2, PolicyAllow, 1}}}},
		Tables:  [][]PolicyPorts{{{0, 1, 1}}},
	}
	for _, n := range networks {
		p.Networks = append(p.Networks, PolicyNetwork{netip.MustParsePrefix(n), 0})
	}
	return p
}

// force puts a policy in force at a line.
func (p *plane) force(base uint32, policy *Policy) {
	p.t.Helper()
	n, _, err := policy.Lines()
	if err != nil {
		p.t.Fatal(err)
	}
	deny := slices.ContainsFunc(policy.Classes, func(c PolicyClass) bool { return c.Deny })
	p.apply(SetPolicyTable{Base: base, Lines: n, Policy: policy}, SetPolicy{PolicyWord{Base: base, Deny: deny, HostDeny: deny}})
}

// A call that policy denies fails with EPERM, whatever would have become of it,
// over every way in which a packet can start; it is counted for the group and the
// VIP, or for the networks. A group that may, may.
// edge D32, edge D5, edge D12, threat P1, threat P2, threat P4, threat P8
func TestKernelPolicyDenies(t *testing.T) {
	kerneltest.NeedsUring(t)
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip, direct = "10.96.0.10:53", "10.96.0.77:53"
	kerneltest.AddAddress(t, "10.96.0.77")
	kerneltest.Serve(t, "itself", direct)
	tcp := p.vip("tcp", vip).to(a.Addr.String())
	udp := p.vip("udp", vip+"/udp").to(a.Addr.String())
	poor, rich := p.newGroup("poor", true), p.newGroup("rich", true)
	slices := map[uint32]*kerneltest.Cgroup{poor: p.root.Make(t, "poor"), rich: p.root.Make(t, "rich")}
	p.mapTo(slices[poor], poor, 0)
	p.mapTo(slices[rich], rich, 0)
	p.force(1, tablePolicy(PolicyDeny, false, "10.96.0.0/16"))

	calls := uint64(0)
	for name, call := range map[string]func(c *kerneltest.Client, to string) error{
		"connect TCP": func(c *kerneltest.Client, to string) error { return c.TCP(to).Connect(to) },
		"connect UDP": func(c *kerneltest.Client, to string) error { return c.UDP(to).Connect(to) },
		"sendto":      func(c *kerneltest.Client, to string) error { return c.UDP(to).SendTo("x", to, 0) },
		"connected to one, sendto another": func(c *kerneltest.Client, to string) error {
			s := c.UDP(to)
			if err := s.Connect(a.Addr.String()); err != nil {
				return err
			}
			return s.SendTo("x", to, 0)
		},
		"mapped connect": func(c *kerneltest.Client, to string) error { return c.TCP(mapped(to)).Connect(mapped(to)) },
		"mapped sendto":  func(c *kerneltest.Client, to string) error { return c.UDP(mapped(to)).SendTo("x", mapped(to), 0) },
		"IPv4 address, connect of IPv6 UDP": func(c *kerneltest.Client, to string) error {
			return c.MustSocket(unix.AF_INET6, unix.SOCK_DGRAM, 0).Connect(to)
		},
		"IPv4 address, sendto of IPv6 UDP": func(c *kerneltest.Client, to string) error {
			return c.MustSocket(unix.AF_INET6, unix.SOCK_DGRAM, 0).SendTo("x", to, 0)
		},
		"sendmmsg":  func(c *kerneltest.Client, to string) error { return second(c.UDP(to).SendMany("x", to)) },
		"fast open": func(c *kerneltest.Client, to string) error { return c.TCP(to).SendTo("x", to, unix.MSG_FASTOPEN) },
		"mapped fast open": func(c *kerneltest.Client, to string) error {
			return c.TCP(mapped(to)).SendTo("x", mapped(to), unix.MSG_FASTOPEN)
		},
		"fast open connect": func(c *kerneltest.Client, to string) error {
			s := c.TCP(to)
			if err := s.SetOption(unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil {
				t.Fatal(err)
			}
			return s.Connect(to)
		},
		"io_uring":        func(c *kerneltest.Client, to string) error { return c.TCP(to).ConnectUring(to, false) },
		"io_uring async":  func(c *kerneltest.Client, to string) error { return c.TCP(to).ConnectUring(to, true) },
		"mapped io_uring": func(c *kerneltest.Client, to string) error { return c.TCP(mapped(to)).ConnectUring(mapped(to), false) },
		"MPTCP":           func(c *kerneltest.Client, to string) error { return mptcp(t, c, to).Connect(to) },
		"mapped MPTCP":    func(c *kerneltest.Client, to string) error { return mptcp(t, c, mapped(to)).Connect(mapped(to)) },
	} {
		for _, to := range []string{vip, direct} {
			failsWith(t, name+" to "+to, call(kerneltest.Start(t, slices[poor]), to), unix.EPERM)
			calls++
			succeeds(t, name+" to "+to+" by who may", call(kerneltest.Start(t, slices[rich]), to))
		}
	}
	n := p.counters()
	networks := n.Pairs[ViewKey{NetworksCell, poor}].Denied
	atVIP := n.Pairs[ViewKey{tcp.cell, poor}].Denied + n.Pairs[ViewKey{udp.cell, poor}].Denied
	if networks != calls/2 || atVIP != calls/2 {
		t.Errorf("%d calls denied at the VIP and %d at the network, of %d", atVIP, networks, calls)
	}
	if c := n.Pairs[ViewKey{tcp.cell, poor}]; c.Connects+c.Rejected+c.Passed != 0 {
		t.Errorf("what is denied counts as something else: %+v", c)
	}
	for _, pair := range []ViewKey{{NetworksCell, rich}, {tcp.cell, rich}, {NetworksCell, 0}} {
		if d := n.Pairs[pair].Denied; d != 0 {
			t.Errorf("%v: %d denied", pair, d)
		}
	}
	hits, err := p.RuleHits()
	if err != nil || len(hits) != 1 || hits[0] < 2*calls {
		t.Errorf("the rule has decided %v, %v", hits, err)
	}
}

func mptcp(t *testing.T, c *kerneltest.Client, to string) *kerneltest.Socket {
	t.Helper()
	s, err := c.Socket(domain(to), unix.SOCK_STREAM, ipprotoMPTCP)
	if err != nil {
		kerneltest.Lacks(t, "MPTCP", "5.6", err)
	}
	return s
}

// An IPv6 send is never turned into an IPv4 one: were a table to say so, the kernel
// would refuse the call. Policy sees it before that.
// threat P9
func TestKernelPolicyMixedFamilies(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "[fd00:96::10]:53"
	p.vip("mixed", vip+"/udp").to(a.Addr.String())
	c := kerneltest.Start(t, p.root)
	const enotsupp = unix.Errno(524) // of the kernel's own
	failsWith(t, "sendto of an IPv6 VIP with an IPv4 backend", c.UDP(vip).SendTo("mixed", vip, 0), enotsupp)
	p.force(1, tablePolicy(PolicyDeny, false, "fd00:96::/32"))
	failsWith(t, "denied", c.UDP(vip).SendTo("mixed", vip, 0), unix.EPERM)
	if n := a.Seen("mixed"); n != 0 {
		t.Errorf("%d datagrams got to an IPv4 backend", n)
	}
}

// The plain send of a connected v4-mapped socket names the backend that connect
// chose: policy was asked about the VIP, not about that. Another destination, and
// that backend on a socket that did not get it from a VIP, are asked about.
// threat P8, threat P7
func TestKernelPolicyAsksOnce(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:53"
	p.vip("a", vip+"/udp").to(a.Addr.String())
	p.force(1, tablePolicy(PolicyDeny, false, "127.0.0.0/8"))
	c := kerneltest.Start(t, p.root)
	for _, name := range []func(string) string{func(s string) string { return s }, mapped} {
		s := c.UDP(name(vip))
		succeeds(t, "connect to the VIP", s.Connect(name(vip)))
		succeeds(t, "send", s.Send("x"))
		answersFrom(t, "send", s, "a", name(vip))
		failsWith(t, "sendto elsewhere", s.SendTo("x", name("127.0.0.9:9"), 0), unix.EPERM)
		failsWith(t, "another socket's sendto", c.UDP(name(vip)).SendTo("x", name(a.Addr.String()), 0), unix.EPERM)
	}
	// A connected socket stays so when policy changes: its plain send has no hook.
	// threat P10
	s := c.UDP(vip)
	succeeds(t, "connect", s.Connect(vip))
	p.force(4000, tablePolicy(PolicyDeny, false, "10.0.0.0/8", "127.0.0.0/8"))
	failsWith(t, "connect after the change", c.UDP(vip).Connect(vip), unix.EPERM)
	succeeds(t, "send after the change", s.Send("x"))
	answersFrom(t, "send after the change", s, "a", vip)
}

// The task that calls decides, wherever its socket comes from.
// threat P11, edge D22
func TestKernelPolicyByCaller(t *testing.T) {
	p := newPlane(t, small)
	const direct = "127.0.0.7:9"
	rich := uint32(2)
	p.newGroup("poor", true)
	p.newGroup("rich", true)
	slice := p.root.Make(t, "rich")
	p.mapTo(slice, rich, 0)
	p.force(1, tablePolicy(PolicyDeny, false, "127.0.0.0/8"))
	may, mayNot := kerneltest.Start(t, slice), kerneltest.Start(t, p.root)
	s, err := mayNot.UDP(direct).Pass(may)
	succeeds(t, "pass", err)
	succeeds(t, "connect by who may", s.Connect(direct))
	s, err = may.UDP(direct).Pass(mayNot)
	succeeds(t, "pass", err)
	failsWith(t, "connect by who may not", s.Connect(direct), unix.EPERM)
}

// Rules that are written anew in the bank that counts go on counting; in the other bank
// they begin at zero.
func TestKernelPolicyCounts(t *testing.T) {
	p := newPlane(t, small)
	policy := tablePolicy(PolicyDeny, false, "127.0.0.0/8")
	lines, _, err := policy.Lines()
	if err != nil {
		t.Fatal(err)
	}
	c := kerneltest.Start(t, p.root)
	for i, step := range []struct {
		bank uint8
		want uint64
	}{{1, 1}, {1, 2}, {0, 1}, {0, 2}, {1, 1}} {
		base := 1 + uint32(i)*lines
		p.apply(SetPolicyTable{Base: base, Lines: lines, Bank: step.bank, Policy: policy}, SetPolicy{PolicyWord{Base: base, Bank: step.bank}})
		failsWith(t, "connect", c.TCP("127.0.0.1:9").Connect("127.0.0.1:9"), unix.EPERM)
		if hits, err := p.RuleHits(); err != nil || len(hits) != 1 || hits[0] != step.want {
			t.Errorf("step %d: %v, %v, want %d", i, hits, err, step.want)
		}
	}
}

// A call that was refused below leaves nothing of policy's.
// edge D44, fault F26
func TestKernelPolicyAfterDenial(t *testing.T) {
	p := newPlane(t, small)
	p.force(1, tablePolicy(PolicyDeny, false, "127.0.0.0/8"))
	child := p.root.Make(t, "child")
	c := kerneltest.Start(t, child)
	attachTheirs(t, child, theirs(t, 0), allowMulti)
	failsWith(t, "connect", c.TCP("127.0.0.1:9").Connect("127.0.0.1:9"), unix.EPERM)
	if n := p.counters(); n.Pairs[ViewKey{NetworksCell, 0}] != (Counters{}) {
		t.Errorf("counted: %+v", n.Pairs)
	}
	if hits, err := p.RuleHits(); err != nil || hits[0] != 0 {
		t.Errorf("rules: %v, %v", hits, err)
	}
}

// What an audit lets through is recorded, once for each group and address, until
// the table is full, which is counted. A group's records go with it.
func TestKernelPolicyAudits(t *testing.T) {
	opts := small
	p := newPlane(t, opts)
	group := p.newGroup("g", true)
	slice := p.root.Make(t, "g")
	p.mapTo(slice, group, 0)
	p.force(1, tablePolicy(PolicyAudit, false, "127.0.0.0/8", "::1/128"))
	c := kerneltest.Start(t, slice)
	for range 3 {
		succeeds(t, "connect", c.UDP("127.0.0.1:9").Connect("127.0.0.1:9"))
	}
	succeeds(t, "connect", c.UDP("[::1]:65535").Connect("[::1]:65535"))
	seen, err := p.Seen()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, s := range seen {
		if s.Group != group || s.Rule != 1 || s.Last == 0 || s.Proto != UDP {
			t.Errorf("%+v", s)
		}
		got[s.Addr.String()] = s.Count
	}
	if len(got) != 2 || got["127.0.0.1:9"] != 3 || got["[::1]:65535"] != 1 {
		t.Errorf("recorded: %v", got)
	}
	p.mapTo(slice, 0, 0)
	p.apply(SetGroup{Index: group})
	if seen, err := p.Seen(); err != nil || len(seen) != 0 {
		t.Errorf("of a group that is gone: %v, %v", seen, err)
	}
}

// Where the policy cannot be read, a default-deny group is denied, and another is
// not.
func TestKernelPolicyBroken(t *testing.T) {
	p := newPlane(t, small)
	p.apply(SetGroup{0, Group{Name: "host", Translate: true}}, SetGroup{1, Group{Name: "closed", Translate: true, Deny: true}})
	slice := p.root.Make(t, "closed")
	p.mapTo(slice, 1, 0)
	open, closed := kerneltest.Start(t, p.root), kerneltest.Start(t, slice)
	const direct = "127.0.0.1:9"
	for _, line := range []uint32{PolicyLines - 140, PolicyLines - 1, 1 << 31} {
		*p.policyWord = uint64(line)
		if line < PolicyLines {
			// The bitmaps, as far as they are there, say that it is named.
			for i := line; i < PolicyLines; i++ {
				for j := range p.policyLines[i].W {
					p.policyLines[i].W[j] = ^uint64(0)
				}
			}
		}
		failsWith(t, "connect of a default-deny group", closed.UDP(direct).Connect(direct), unix.EPERM)
		succeeds(t, "connect of another", open.UDP(direct).Connect(direct))
	}
	*p.policyWord = 0
	if st := p.stats(); st.PolicyBroken != 6 {
		t.Errorf("%d calls met a policy that cannot be read", st.PolicyBroken)
	}
	succeeds(t, "connect without a policy", closed.UDP(direct).Connect(direct))
}

// A full table of audited calls loses only the record.
// fault F14
func TestKernelSeenFull(t *testing.T) {
	p := newPlane(t, Options{Slots: 1 << 16, UDPFlows: 1 << 16, Capacities: small.Capacities, seen: 8})
	p.force(1, tablePolicy(PolicyAudit, false, "127.0.0.0/8"))
	c := kerneltest.Start(t, p.root)
	for i := range byte(20) {
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, i}), 9).String()
		succeeds(t, "connect", c.UDP(to).Connect(to))
	}
	seen, err := p.Seen()
	if st := p.stats(); err != nil || len(seen) != 8 || st.SeenFull != 12 {
		t.Errorf("%d recorded, %d not, %v", len(seen), st.SeenFull, err)
	}
	if err := p.ForgetSeen(); err != nil {
		t.Fatal(err)
	}
	succeeds(t, "connect", c.UDP("127.0.2.1:9").Connect("127.0.2.1:9"))
	seen, err = p.Seen()
	if st := p.stats(); err != nil || len(seen) != 1 || seen[0].Addr.String() != "127.0.2.1:9" || st.SeenFull != 0 {
		t.Errorf("after it was emptied: %v recorded, %d not, %v", seen, st.SeenFull, err)
	}
}
