package bpf

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// withoutSockDestroy is a kernel before 6.5.
func withoutSockDestroy(t *testing.T) {
	before := loadSweepSpec
	t.Cleanup(func() { loadSweepSpec = before })
	loadSweepSpec = func() (*ebpf.CollectionSpec, error) {
		spec, err := before()
		if err == nil {
			delete(spec.Programs, sweepProgSlbCloseTcp)
			delete(spec.Programs, sweepProgSlbCloseUdp)
		}
		return spec, err
	}
}

// bothWays runs a test with bpf_sock_destroy and with sock_diag.
func bothWays(t *testing.T, f func(*testing.T)) {
	t.Run("sock_destroy", func(t *testing.T) {
		if !kerneltest.KernelAtLeast("6.5") {
			t.Skip("bpf_sock_destroy (since Linux 6.5)")
		}
		f(t)
	})
	t.Run("sock_diag", func(t *testing.T) {
		withoutSockDestroy(t)
		f(t)
	})
}

var all = Traits{TerminateUDP: true, TerminateTCP: true}

func traits(t *testing.T, p *plane, byVIP map[string]Traits) {
	t.Helper()
	if err := p.SetTraits(byVIP); err != nil {
		t.Fatal(err)
	}
}

// sweeps expects one Sweep to close so many sockets and to leave none.
func sweeps(t *testing.T, what string, p *plane, closed int) {
	t.Helper()
	got, err := p.Sweep()
	if err != nil || got != (Swept{Closed: closed}) {
		t.Errorf("%s: swept %+v, %v; want %d closed", what, got, err, closed)
	}
}

func gone(p *plane) bool {
	select {
	case <-p.Gone():
		return true
	default:
		return false
	}
}

// wasClosed expects that a socket was closed under its owner.
func wasClosed(t *testing.T, what string, s *kerneltest.Socket) {
	t.Helper()
	if got, err := s.Receive(); err != unix.ECONNABORTED {
		t.Errorf("%s: not closed: %q, %v", what, got, err)
	}
}

// echoes expects that a connected socket works.
func echoes(t *testing.T, what string, s *kerneltest.Socket, want string) {
	t.Helper()
	if err := s.Send("x"); err != nil {
		t.Errorf("%s: send: %v", what, err)
		return
	}
	if got, err := s.Receive(); err != nil || got != want {
		t.Errorf("%s: answer %q, %v; want %q", what, got, err, want)
	}
}

// A backend goes, and the sockets that the VIP sent to it are closed, of every
// family: no others. // edge D38
func TestKernelTerminates(t *testing.T) {
	for _, state := range []BackendState{BackendFree, BackendDown} {
		t.Run(state.String(), func(t *testing.T) { bothWays(t, func(t *testing.T) { terminates(t, state) }) })
	}
}

// A kernel that can close no socket of somebody else's leaves them, counts them,
// and says what it lacks.
func TestKernelTerminatesNothing(t *testing.T) {
	withoutSockDestroy(t)
	before := askDiag
	t.Cleanup(func() { askDiag = before })
	askDiag = func(*nl.NetlinkRequest) error { return unix.EOPNOTSUPP }
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:53"
	v := p.vip("udp", vip+"/udp").to(a.Addr.String())
	traits(t, p, map[string]Traits{"udp": all})
	s := kerneltest.Start(t, p.root).UDP(vip)
	succeeds(t, "connect", s.Connect(vip))
	v.state(a.Addr.String(), BackendDown)
	got, err := p.Sweep()
	if err != nil || got.Closed != 0 || got.Left != 1 || !errors.Is(got.Err, ErrNotSupported) || !strings.Contains(got.Err.Error(), "CONFIG_INET_DIAG_DESTROY") {
		t.Errorf("%+v, %v", got, err)
	}
	succeeds(t, "send on what is left", s.Send("x"))
}

func terminates(t *testing.T, state BackendState) {
	p := newPlane(t, small)
	c := kerneltest.Start(t, p.root)
	traits(t, p, map[string]Traits{"v4": all, "v6": all, "mapped": all, "udp": {TerminateUDP: true}, "none": {}, "other": all})

	families := []struct{ name, vip, backend string }{
		{"v4", "10.96.0.10:80", "127.0.0.1:0"},
		{"v6", "[fd00:96::10]:80", "[::1]:0"},
		{"mapped", "10.96.0.11:80", "127.0.0.1:0"},
	}
	other := kerneltest.Serve(t, "other", "127.0.0.1:0")
	p.vip("other", "10.96.0.20:80", "10.96.0.20:80/udp").to(other.Addr.String())

	closed := map[string]*kerneltest.Socket{}
	spared := map[string]*kerneltest.Socket{}
	answer := map[string]string{}
	var free []func()
	var goes []func()
	for _, f := range families {
		a, b := kerneltest.Serve(t, "a", f.backend), kerneltest.Serve(t, "b", f.backend)
		v := p.vip(f.name, f.vip, f.vip+"/udp").to(a.Addr.String())
		vip, direct := f.vip, a.Addr.String()
		if f.name == "mapped" {
			vip, direct = mapped(vip), mapped(direct)
		}
		open := func(what, to string, udp bool) *kerneltest.Socket {
			var s *kerneltest.Socket
			if udp {
				s = c.UDP(vip)
				succeeds(t, f.name+" "+what, s.Connect(to))
				echoes(t, f.name+" "+what, s, "a\n")
			} else {
				s = c.TCP(vip)
				succeeds(t, f.name+" "+what, s.Connect(to))
				answers(t, f.name+" "+what, s, "a")
			}
			return s
		}
		closed[f.name+" UDP"] = open("UDP", vip, true)
		closed[f.name+" TCP"] = open("TCP", vip, false)
		keep := func(what string, s *kerneltest.Socket, want string) {
			spared[f.name+" "+what], answer[f.name+" "+what] = s, want
		}
		keep("direct UDP", open("direct UDP", direct, true), "a\n")
		keep("direct TCP", open("direct TCP", direct, false), "x")

		s := open("reconnected", vip, true)
		succeeds(t, f.name+": connect to the backend itself", s.Connect(direct))
		keep("reconnected to the backend itself", s, "a\n")

		if f.name == "v4" {
			s := open("reconnected", vip, true)
			succeeds(t, "connect to another VIP", s.Connect("10.96.0.20:80"))
			keep("reconnected to another VIP", s, "other\n")
			for name, front := range map[string]string{"none": "10.96.0.30:80", "udp": "10.96.0.31:80"} {
				lax := p.vip(name, front, front+"/udp").to(a.Addr.String())
				goes = append(goes, func() { lax.to(b.Addr.String()); lax.state(a.Addr.String(), state) })
				s = c.TCP(front)
				succeeds(t, name, s.Connect(front))
				answers(t, name, s, "a")
				keep("TCP of terminate="+name, s, "x")
			}
			s = c.UDP("10.96.0.30:80")
			succeeds(t, "none", s.Connect("10.96.0.30:80"))
			keep("UDP of terminate=none", s, "a\n")
			s = c.UDP("10.96.0.31:80")
			succeeds(t, "udp", s.Connect("10.96.0.31:80"))
			closed["v4 UDP of terminate=udp"] = s
		}

		idle := open("disconnected", vip, true)
		succeeds(t, f.name+": disconnect", idle.Disconnect())
		unconnected := c.UDP(vip)
		succeeds(t, f.name+": sendto", unconnected.SendTo("x", vip, 0))
		answersFrom(t, f.name+": unconnected", unconnected, "a", vip)
		free = append(free, func() {
			// edge D9, edge D35: the flow chooses anew; the socket is the same.
			for what, s := range map[string]*kerneltest.Socket{"unconnected": unconnected, "disconnected": idle} {
				succeeds(t, f.name+" "+what+": sendto", s.SendTo("x", vip, 0))
				answersFrom(t, f.name+" "+what, s, "b", vip)
			}
		})
		goes = append(goes, func() {
			v.to(b.Addr.String())
			v.state(a.Addr.String(), BackendDraining)
			if gone(p) {
				t.Error("a draining backend is said to be gone")
			}
			sweeps(t, "draining", p, 0)
			v.state(a.Addr.String(), state)
			if !gone(p) {
				t.Error("nobody says that a backend is gone")
			}
			sweeps(t, f.name, p, 2)
		})
	}
	for _, g := range goes[:2] {
		g()
	}
	if !gone(p) {
		t.Error("nobody says that a backend is gone")
	}
	sweeps(t, "udp, none", p, 1)
	if has := p.sweep.tcp != nil; has != (kerneltest.KernelAtLeast("6.5") && !strings.Contains(t.Name(), "sock_diag")) {
		t.Errorf("bpf_sock_destroy is used: %v", has)
	}
	lacks := slices.ContainsFunc(p.Missing(), func(f Feature) bool { return f.Name == sockDestroy })
	if lacks != (p.sweep.tcp == nil) {
		t.Errorf("missing: %v", p.Missing())
	}
	for _, g := range goes[2:] {
		g()
	}
	sweeps(t, "again", p, 0)
	for what, s := range closed {
		wasClosed(t, what, s)
	}
	for what, s := range spared {
		echoes(t, what, s, answer[what])
	}
	for _, f := range free {
		f()
	}
	// Who was closed connects again, to what is there.
	s := closed["v4 UDP"]
	succeeds(t, "connect again", s.Connect("10.96.0.10:80"))
	echoes(t, "connected again", s, "b\n")
}

// A backend of which nobody knows any more what it was: the process was killed
// between its end and the sweep, and the index is another's. // edge D38
func TestKernelTerminatesLater(t *testing.T) {
	p := newPlane(t, small)
	c := kerneltest.Start(t, p.root)
	const vip, reused = "10.96.0.10:80", "10.96.0.11:80"
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	traits(t, p, map[string]Traits{"db": all, "reused": all})
	v, r := p.vip("db", vip+"/udp").to(a.Addr.String()), p.vip("reused", reused+"/udp").to(a.Addr.String())
	var sockets []*kerneltest.Socket
	for _, to := range []string{vip, reused} {
		s := c.UDP(to)
		succeeds(t, "connect", s.Connect(to))
		sockets = append(sockets, s)
	}
	v.remove()
	v.state(a.Addr.String(), BackendFree)
	r.state(a.Addr.String(), BackendFree)
	store := inStore(t, p.Datapath)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := Adopt(store, Options{Build: Build()})
	if err != nil {
		t.Fatal(err)
	}
	p.Datapath = d
	traits(t, p, map[string]Traits{"new": {}})
	p.cell++
	index := r.backends[a.Addr]
	p.apply(
		SetCellInfo{p.cell, CellInfo{VIP: "new", Family: 4}},
		SetBackend{index, Backend{Addr: a.Addr, Gen: 2, Cell: p.cell}},
		SetBackendCell{index, BackendCell{State: BackendActive, Gen: 2}},
	)
	sweeps(t, "after the kill", p, 2)
	for i, s := range sockets {
		wasClosed(t, fmt.Sprintf("socket %d", i), s)
	}
}

// Sockets in other network namespaces: closed where one may enter them, else
// counted. // edge D38
func TestKernelTerminatesElsewhere(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		p := newPlane(t, small)
		const vip, backend = "10.96.0.10:80", "192.0.2.1:8080"
		traits(t, p, map[string]Traits{"db": all})
		home := kerneltest.Serve(t, "home", backend)
		v := p.vip("db", vip, vip+"/udp").to(home.Addr.String())
		var there []*kerneltest.Socket
		for range 2 {
			other := kerneltest.NewNetns(t)
			other.Do(t, func() {
				kerneltest.Serve(t, "there", backend)
				c := kerneltest.Start(t, p.root)
				for _, s := range []*kerneltest.Socket{c.TCP(vip), c.UDP(vip)} {
					succeeds(t, "connect elsewhere", s.Connect(vip))
					there = append(there, s)
				}
				s := c.TCP(backend)
				succeeds(t, "connect directly", s.Connect(backend))
				t.Cleanup(func() {
					answers(t, "direct", s, "there")
					echoes(t, "direct", s, "x")
				})
			})
		}
		c := kerneltest.Start(t, p.root)
		s := c.UDP(vip)
		succeeds(t, "connect at home", s.Connect(vip))

		v.state(backend, BackendDown)
		setns = func(int, int) error { return unix.EPERM }
		t.Cleanup(func() { setns = unix.Setns })
		got, err := p.Sweep()
		if err != nil || got.Closed != 1 || got.Left != 0 || got.Stuck != len(there) || got.Err == nil {
			t.Errorf("without privileges: swept %+v, %v", got, err)
		}
		wasClosed(t, "at home", s)
		setns = unix.Setns
		sweeps(t, "with privileges", p, len(there))
		for i, s := range there {
			if i%2 == 0 {
				answers(t, "elsewhere", s, "there") // what came before
			}
			wasClosed(t, fmt.Sprintf("elsewhere %d", i), s)
		}
	})
}

// Where the first thread is what a sweep abroad was given, it does the work on
// another one.
func TestAwayFromMain(t *testing.T) {
	own := onMainThread
	t.Cleanup(func() { onMainThread = own })
	first := 0
	onMainThread = func() bool {
		if first == 0 {
			first = unix.Gettid()
		}
		return unix.Gettid() == first
	}
	done := make(chan int, 1)
	go awayFromMain(func() { done <- unix.Gettid() })
	if got := <-done; got == first || first == 0 {
		t.Errorf("worked on thread %d, the first is %d", got, first)
	}
}
