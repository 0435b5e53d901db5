package health

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// once checks one address and returns what came of it.
func once(t *testing.T, c Check, to netip.AddrPort) Result {
	t.Helper()
	if c.Interval == 0 {
		c.Interval, c.Timeout, c.Fall, c.Rise = 5*time.Second, 2*time.Second, 1, 1
	}
	checker := start(t)
	set := checker.Set([]Target{{VIP: "a", Addr: to, Check: &c}})
	deadline := time.After(20 * time.Second)
	for {
		select {
		case v := <-checker.Verdicts():
			if v.Set == set && v.Unchecked == 0 {
				return checker.Results()[Endpoint{"a", to}]
			}
		case <-deadline:
			t.Fatal("no verdict")
		}
	}
}

// start runs a checker until the test ends.
func start(t testing.TB) *Checker {
	t.Helper()
	checker := New()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- checker.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return checker
}

// barePoller is one that no checker uses.
func barePoller(t *testing.T) *poller {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tasks, ctx := errgroup.WithContext(ctx)
	p, err := newPoller(tasks, ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(tasks.Wait(), p.close()); err != nil {
			t.Error(err)
		}
	})
	return p.(*poller)
}

// serve runs f for each connection until the test ends.
func serve(t testing.TB, network, address string, f func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// full is a listener that has no room for one more connection.
func full(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
	for range 8 {
		c, err := net.DialTimeout("tcp", at.String(), 100*time.Millisecond)
		if err != nil {
			return at
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("it has room without end")
	return at
}

func TestTCP(t *testing.T) {
	open := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) { io.Copy(io.Discard, c) })
	if r := once(t, Check{}, open); r.State != Up || r.Err != nil {
		t.Errorf("%+v", r)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	if r := once(t, Check{}, gone); r.State != Down || !errors.Is(r.Err, syscall.ECONNREFUSED) {
		t.Errorf("%+v", r)
	}
	r := once(t, Check{Interval: 5 * time.Second, Timeout: 200 * time.Millisecond, Fall: 1, Rise: 1}, full(t))
	if r.State != Down || !errors.Is(r.Err, errConnectTimeout) || r.Took < 200*time.Millisecond || r.Took > 2*time.Second {
		t.Errorf("%+v", r)
	}
	if ln, err := net.Listen("tcp", "[::1]:0"); err == nil {
		ln.Close()
		six := serve(t, "tcp", "[::1]:0", func(c net.Conn) { io.Copy(io.Discard, c) })
		if r := once(t, Check{}, six); r.State != Up {
			t.Errorf("%+v", r)
		}
	}
}

// A TCP check is over before the peer has a connection: no application there accepts one,
// or has its queue filled. A checker that does not run for 200 ms makes one after all.
func TestTCPUnseen(t *testing.T) {
	const checks = 50
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	checker := start(t)
	checker.Set([]Target{{VIP: "a", Addr: at, Check: &Check{Interval: 20 * time.Millisecond, Timeout: time.Second, Fall: 1, Rise: 1}}})
	for deadline := time.After(20 * time.Second); checker.Stats().Checks < checks; {
		select {
		case <-deadline:
			t.Fatalf("%+v", checker.Stats())
		case <-time.After(time.Millisecond):
		}
	}
	checker.Set(nil)
	last, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	for seen := 0; ; seen++ {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if c.RemoteAddr().String() != last.LocalAddr().String() {
			continue
		}
		if seen > checks/2 {
			t.Errorf("%d of %d checks became connections", seen, checks)
		}
		break
	}
	if s := checker.Stats(); s.Failed > 0 {
		t.Errorf("%+v", s)
	}
}

// Who was asked by one check cannot tell the sequence numbers of the next, which may ask
// another.
func TestSequence(t *testing.T) {
	p := barePoller(t)
	at := serve(t, "tcp", "127.0.0.1:0", func(net.Conn) {})
	seen := map[int]int{} // by descriptor
	for range 3 {
		f := &flight{probe: newProbe(Target{Addr: at, Check: &Check{}}, time.Now()), slot: -1}
		if p.start(f) {
			t.Fatal(f.err)
		}
		fd := p.conns[f.slot].fd
		if err := tellSequence(fd); errors.Is(err, unix.EPERM) {
			t.Skip("without CAP_NET_ADMIN no socket is used again")
		} else if err != nil {
			t.Fatal(err)
		}
		number, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		if err != nil {
			t.Fatal(err)
		}
		if last, ok := seen[fd]; ok && uint32(number-last) < 1<<17 {
			t.Errorf("%d follows %d", number, last)
		}
		seen[fd] = number
		for deadline := time.Now().Add(10 * time.Second); len(p.wait(time.Second)) == 0; {
			if time.Now().After(deadline) {
				t.Fatal("no end")
			}
		}
		if f.err != nil {
			t.Fatal(f.err)
		}
	}
	if len(seen) != 1 {
		t.Errorf("%d sockets for one check after the other", len(seen))
	}
}

// tellSequence has TCP_QUEUE_SEQ tell the number of what is sent next.
func tellSequence(fd int) error {
	for _, o := range [][2]int{{unix.TCP_REPAIR, unix.TCP_REPAIR_ON}, {unix.TCP_REPAIR_QUEUE, 2}, {unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP}} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, o[0], o[1]); err != nil {
			return err
		}
	}
	return nil
}

// A wake-up ends a wait that has begun and one that begins, with a socket under way and
// without one.
func TestWake(t *testing.T) {
	p := barePoller(t)
	late := func(what string, wake func()) {
		t.Helper()
		begun := time.Now()
		wake()
		p.wait(10 * time.Second)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: it took %v", what, took)
		}
		p.poll(0) // what is left of it
		select {
		case <-p.woken:
		default:
		}
	}
	soon := func() { time.AfterFunc(20*time.Millisecond, p.wake) }
	late("no socket, before", p.wake)
	late("no socket, after", soon)
	f := &flight{probe: newProbe(Target{Addr: full(t), Check: &Check{}}, time.Now()), slot: -1}
	if p.start(f) {
		t.Fatal(f.err)
	}
	late("a socket, before", p.wake)
	late("a socket, after", soon)
	p.stop(f)
}
