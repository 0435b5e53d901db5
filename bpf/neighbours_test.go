package bpf

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// theirsOn is a program of somebody else on a hook of addresses: it allows or
// denies all.
func theirsOn(t *testing.T, attach ebpf.AttachType, verdict int32) *ebpf.Program {
	t.Helper()
	return theirsThat(t, attach, asm.Mov.Imm(asm.R0, verdict), asm.Return())
}

func theirsThat(t *testing.T, attach ebpf.AttachType, does ...asm.Instruction) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "theirs", Type: ebpf.CGroupSockAddr, AttachType: attach, License: "GPL", Instructions: does,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// hang attaches their program as systemd does; what it returns takes it off.
func hang(t *testing.T, c *kerneltest.Cgroup, p *ebpf.Program, attach ebpf.AttachType, flags uint32) (off func()) {
	t.Helper()
	dir := c.Open(t)
	err := link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: int(dir.Fd()), Program: p, Attach: attach, Flags: flags,
	})
	if err != nil {
		t.Fatal(err)
	}
	gone := false
	off = func() {
		if gone {
			return
		}
		gone = true
		err := link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(dir.Fd()), Program: p, Attach: attach})
		if err != nil {
			t.Errorf("detach their program: %v", err)
		}
	}
	t.Cleanup(off)
	return off
}

// A program of somebody else denies, on each hook on which one can. Where it runs
// before ours, in a cgroup below, ours leaves no count, no state and no event;
// where it runs after ours, in the same cgroup, that is too late, and the README
// says so. Either way the call fails, nothing arrives, and when it is gone all is
// as ever.
// fault F26, edge D44
func TestKernelNeighbourDenies(t *testing.T) {
	p := newPlane(t, small)
	r, told := listening(t, p)
	watchFor(t, p, r, everything())
	child := p.root.Make(t, "child")
	c := kerneltest.Start(t, child)
	connects := func(s *kerneltest.Socket, to string) error { return s.Connect(to) }
	sends := func(s *kerneltest.Socket, to string) error { return s.SendTo("refused", to, 0) }
	for _, h := range []struct {
		name         string
		attach       ebpf.AttachType
		vip, backend string
		typ          int
		call         func(*kerneltest.Socket, string) error
	}{
		{"connect4 TCP", ebpf.AttachCGroupInet4Connect, "10.96.0.10:80", "127.0.0.1:0", unix.SOCK_STREAM, connects},
		{"connect4 UDP", ebpf.AttachCGroupInet4Connect, "10.96.0.11:80/udp", "127.0.0.1:0", unix.SOCK_DGRAM, connects},
		{"connect6 TCP", ebpf.AttachCGroupInet6Connect, "[fd00:96::10]:80", "[::1]:0", unix.SOCK_STREAM, connects},
		{"connect6 UDP", ebpf.AttachCGroupInet6Connect, "[fd00:96::11]:80/udp", "[::1]:0", unix.SOCK_DGRAM, connects},
		{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg, "10.96.0.12:80/udp", "127.0.0.1:0", unix.SOCK_DGRAM, sends},
		{"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg, "[fd00:96::12]:80/udp", "[::1]:0", unix.SOCK_DGRAM, sends},
	} {
		a := kerneltest.Serve(t, h.name, h.backend)
		v := p.vip(h.name, h.vip).to(a.Addr.String())
		vip, _, udp := strings.Cut(h.vip, "/")
		try := func(what string) *kerneltest.Socket {
			t.Helper()
			s := c.MustSocket(domain(vip), h.typ, 0)
			failsWith(t, what, h.call(s, vip), unix.EPERM)
			return s
		}
		calls := func() uint64 { n := p.counters().Cells[v.cell]; return n.Connects + n.Flows }

		off := hang(t, child, theirsOn(t, h.attach, 0), h.attach, allowMulti)
		s := try(h.name + ": denied before ours")
		if n := p.counters(); n.Cells[v.cell] != (Counters{}) || n.Pairs[ViewKey{v.cell, 0}] != (Counters{}) {
			t.Errorf("%s: what is denied before ours is counted: %+v", h.name, n.Cells[v.cell])
		}
		liveIs(t, h.name+": denied before ours", v, a.Addr.String(), 0)
		off()

		off = hang(t, p.root, theirsOn(t, h.attach, 0), h.attach, allowMulti)
		late := try(h.name + ": denied after ours")
		if n := calls(); n != 1 {
			t.Errorf("%s: denied after ours is counted %d times: the README says once", h.name, n)
		}
		if d := next(t, told); d.Told != Translated || d.VIP != v.cell {
			t.Errorf("%s: the first that is told is %+v; what is denied before ours is not", h.name, d)
		}
		off()
		succeeds(t, "close", late.Close())
		liveIs(t, h.name+": denied after ours and closed", v, a.Addr.String(), 0)

		// The socket that was denied has no past.
		succeeds(t, h.name+": when they are gone", h.call(s, vip))
		next(t, told)
		if udp {
			succeeds(t, "send", s.SendTo("x", vip, 0))
			answersFrom(t, h.name+": when they are gone", s, h.name, vip)
		} else {
			answers(t, h.name+": when they are gone", s, h.name)
			peerIs(t, h.name+": when they are gone", s, vip)
		}
		if n := calls(); n != 2 {
			t.Errorf("%s: %d calls are counted, of two that ours let through", h.name, n)
		}
		if want := map[bool]int{true: 1}[strings.HasPrefix(h.name, "sendmsg")]; a.Seen("refused") != want {
			t.Errorf("%s: %d datagrams arrived, of %d", h.name, a.Seen("refused"), want)
		}
	}
}

// What is refused after ours was another choice already: a connected UDP socket
// keeps its peer, and is told that peer's own address from then on.
// fault F26
func TestKernelNeighbourDeniesLate(t *testing.T) {
	p := newPlane(t, small)
	c := kerneltest.Start(t, p.root)
	a, b := kerneltest.Serve(t, "a", "127.0.0.1:0"), kerneltest.Serve(t, "b", "127.0.0.1:0")
	const vip, other = "10.96.0.10:53", "10.96.0.11:53"
	p.vip("a", vip+"/udp").to(a.Addr.String())
	v := p.vip("b", other+"/udp").to(b.Addr.String())
	s := c.UDP(vip)
	succeeds(t, "connect", s.Connect(vip))
	off := hang(t, p.root, theirs(t, 0), ebpf.AttachCGroupInet4Connect, allowMulti)
	failsWith(t, "connect to another", s.Connect(other), unix.EPERM)
	peerIs(t, "refused after ours", s, a.Addr.String())
	succeeds(t, "send", s.Send("x"))
	answersFrom(t, "refused after ours", s, "a", a.Addr.String())
	off()
	succeeds(t, "connect again", s.Connect(vip))
	peerIs(t, "connected again", s, vip)
	liveIs(t, "what was refused", v, b.Addr.String(), 0)
}

func domain(addr string) int {
	if strings.HasPrefix(addr, "[") {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// A refusal on one hook of somebody else's says nothing on another: what connects
// may not be what sends. An IPv4-mapped socket passes hooks of both families, and
// a refusal on either is seen.
// fault F26, edge D44, threat P8
func TestKernelNeighbourDeniesMapped(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:53"
	v := p.vip("a", vip+"/udp").to(a.Addr.String())
	child := p.root.Make(t, "child")
	c := kerneltest.Start(t, child)
	for _, h := range []struct {
		attach ebpf.AttachType
		// what is denied, of connect, connect with an IPv4 address, and sendto
		denied [3]bool
	}{
		{ebpf.AttachCGroupInet4Connect, [3]bool{false, true, false}},
		{ebpf.AttachCGroupInet6Connect, [3]bool{true, false, false}},
		{ebpf.AttachCGroupUDP4Sendmsg, [3]bool{false, false, true}},
		{ebpf.AttachCGroupUDP6Sendmsg, [3]bool{}},
	} {
		off := hang(t, child, theirsOn(t, h.attach, 0), h.attach, allowMulti)
		for i, call := range []func(*kerneltest.Socket) error{
			func(s *kerneltest.Socket) error { return s.Connect(mapped(vip)) },
			func(s *kerneltest.Socket) error { return s.Connect(vip) },
			func(s *kerneltest.Socket) error { return s.SendTo("x", mapped(vip), 0) },
		} {
			before := p.counters().Cells[v.cell]
			s := c.UDP(mapped(vip))
			err := call(s)
			now := p.counters().Cells[v.cell]
			if n := now.Connects + now.Flows - before.Connects - before.Flows; (err == unix.EPERM) != h.denied[i] || (n == 0) != h.denied[i] {
				t.Errorf("%v, call %d: %v, and counted %d times", h.attach, i, err, n)
			}
			succeeds(t, "close", s.Close())
		}
		off()
	}
}

// Nobody can deny where a name is told, and the kernel refuses a program that
// would. One that gives another name is believed: before ours it sees the backend,
// and what it says is no backend's name any more; after ours it sees the VIP.
// fault F26
func TestKernelNeighbourNames(t *testing.T) {
	p := newPlane(t, small)
	child := p.root.Make(t, "child")
	c := kerneltest.Start(t, child)
	const userPort, theirPort = 24, 4242 // of struct bpf_sock_addr
	for _, h := range []struct {
		name         string
		attach       ebpf.AttachType
		vip, backend string
		ask          func(*kerneltest.Socket, string) (string, error)
	}{
		{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg, "10.96.0.10:53", "127.0.0.1:0", answered},
		{"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg, "[fd00:96::10]:53", "[::1]:0", answered},
		{"getpeername4", ebpf.AttachCgroupInet4GetPeername, "10.96.0.11:53", "127.0.0.1:0", connected},
		{"getpeername6", ebpf.AttachCgroupInet6GetPeername, "[fd00:96::11]:53", "[::1]:0", connected},
	} {
		if p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type: ebpf.CGroupSockAddr, AttachType: h.attach, License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		}); err == nil {
			p.Close()
			t.Errorf("%s: the kernel takes a program that denies: what becomes of a denial?", h.name)
		}
		a := kerneltest.Serve(t, h.name, h.backend)
		p.vip(h.name, h.vip+"/udp").to(a.Addr.String())
		vipHost, backendHost := h.vip[:len(h.vip)-len(":53")], h.backend[:len(h.backend)-len(":0")]
		renames := func() *ebpf.Program {
			return theirsThat(t, h.attach,
				// By a register: Linux 6.1 takes no immediate store into the context.
				asm.Mov.Imm(asm.R2, theirPort>>8|theirPort&0xff<<8),
				asm.StoreMem(asm.R1, userPort, asm.R2, asm.Word),
				asm.Mov.Imm(asm.R0, 1), asm.Return())
		}
		is := func(what, want string) {
			t.Helper()
			s := c.UDP(h.vip)
			defer s.Close()
			if got, err := h.ask(s, h.vip); err != nil || got != want {
				t.Errorf("%s: %s: %q, %v; want %s", h.name, what, got, err, want)
			}
		}
		is("alone", h.vip)
		off := hang(t, child, theirsOn(t, h.attach, 1), h.attach, allowMulti)
		is("beside one that does nothing", h.vip)
		off()
		off = hang(t, child, renames(), h.attach, allowMulti)
		is("after one that names a port", backendHost+":4242")
		off()
		off = hang(t, p.root, renames(), h.attach, allowMulti)
		is("before one that names a port", vipHost+":4242")
		off()
	}
}

// answered is the name that an answer to a datagram comes from.
func answered(s *kerneltest.Socket, vip string) (string, error) {
	if err := s.SendTo("x", vip, 0); err != nil {
		return "", err
	}
	_, from, err := s.ReceiveFrom()
	return from, err
}

// connected is the peer's name.
func connected(s *kerneltest.Socket, vip string) (string, error) {
	if err := s.Connect(vip); err != nil {
		return "", err
	}
	return s.Peer()
}

// A socket that somebody else's program refuses is no refusal of ours.
// fault F26
func TestKernelNeighbourDeniesSockets(t *testing.T) {
	p := newPlane(t, small)
	p.apply(SetGroup{1, Group{Name: "strict", Translate: true, Strict: true}})
	slice := p.root.Make(t, "strict")
	p.mapTo(slice, 1, 0)
	p.Want(SockCreate)
	if err := p.Attach(p.dir); err != nil {
		t.Fatal(err)
	}
	c := kerneltest.Start(t, slice)
	raw := func() error {
		_, err := c.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
		return err
	}
	deny, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "theirs", Type: ebpf.CGroupSock, AttachType: ebpf.AttachCGroupInetSockCreate, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer deny.Close()
	for _, where := range []struct {
		name    string
		at      *kerneltest.Cgroup
		counted uint64
	}{{"before ours", slice, 0}, {"after ours", p.root, 1}} {
		before := p.stats().StrictRefused
		off := hang(t, where.at, deny, ebpf.AttachCGroupInetSockCreate, allowMulti)
		failsWith(t, "raw, "+where.name, raw(), unix.EPERM)
		if n := p.stats().StrictRefused - before; n != where.counted {
			t.Errorf("%s: %d counted as ours, want %d", where.name, n, where.counted)
		}
		off()
	}
}
