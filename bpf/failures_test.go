package bpf

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/kerneltest"
	"golang.org/x/sys/unix"
)

// reports reads failures as a daemon does, until the test ends.
func reports(t *testing.T, p *plane) <-chan Failure {
	t.Helper()
	r, err := p.Failures()
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan Failure, 64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			f, err := r.Read()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("read: %v", err)
				}
				return
			}
			out <- f
		}
	}()
	t.Cleanup(func() {
		r.Close()
		<-done
	})
	return out
}

// passive has a plane report failures of these VIPs.
func passive(t *testing.T, p *plane, vips ...string) {
	t.Helper()
	traits := map[string]Traits{}
	for _, name := range vips {
		traits[name] = Traits{Passive: true}
	}
	if err := p.SetTraits(traits); err != nil {
		t.Fatal(err)
	}
	p.Want(SockOps)
	if err := p.Attach(p.dir); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
}

func nextFailure(t *testing.T, what string, from <-chan Failure) Failure {
	t.Helper()
	select {
	case f := <-from:
		return f
	case <-time.After(time.Minute):
		t.Fatalf("%s: no failure was reported", what)
		return Failure{}
	}
}

// closedPort is a loopback address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	return boundTo(t, fd)
}

func boundTo(t *testing.T, fd int) string {
	t.Helper()
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	four := name.(*unix.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), uint16(four.Port)).String()
}

// A refused connect is reported once a tenth of a second and backend, for VIPs
// that are passive and for sockets in the daemon's network namespace.
// // fault F31
func TestKernelFailures(t *testing.T) {
	p := newPlane(t, small)
	const vip, foreign, active = "10.96.0.10:80", "10.96.0.11:80", "10.96.0.12:80"
	refused := closedPort(t)
	p.vip("db", vip).to(refused)
	p.vip("foreign", foreign).to("192.0.2.1:9")
	p.vip("active", active).to(closedPort(t))
	passive(t, p, "db", "foreign")
	from := reports(t, p)
	c := kerneltest.Start(t, p.root)
	other := kerneltest.NewNetns(t)
	var stranger *kerneltest.Client
	other.Do(t, func() {
		kerneltest.AddAddress(t, "192.0.2.1")
		stranger = kerneltest.Start(t, p.root)
	})
	connects := func(c *kerneltest.Client, to string, n int) {
		for range n {
			s := c.TCP(to)
			failsWith(t, "connect to "+to, s.Connect(to), unix.ECONNREFUSED)
			s.Close()
		}
	}

	connects(stranger, foreign, 20)
	connects(c, active, 20)
	connects(c, refused, 20) // past the VIP
	begun := time.Now()
	connects(c, vip, 200)
	f := nextFailure(t, "refused", from)
	if f.VIP != "db" || f.Backend.String() != refused || f.Err != unix.ECONNREFUSED {
		t.Errorf("the first failure is %+v: what others made fail was taken for one", f)
	}
	connects(c, vip, 1)
	took := time.Since(begun)
	most := int(took/rearm) + 2
	for got := 1; ; got++ {
		if got > most {
			t.Errorf("more than %d reports in %v for one backend", most, took)
		}
		select {
		case f := <-from:
			if f.VIP != "db" {
				t.Errorf("reported: %+v", f)
			}
			continue
		default:
		}
		break
	}
	// And again, as soon as it is armed again.
	err := until("another report", func() bool {
		connects(c, vip, 1)
		return len(from) > 0
	})
	if err != nil {
		t.Error(err)
	}

	p.Want()
	if err := p.Attach(p.dir); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(); err != nil {
		t.Error(err)
	}
	for name := range names(p.FDs()) {
		if n, _ := parseStoredName(name); n.kind == kindLink && n.object == slicelbProgSlbSockops {
			t.Errorf("%s is there, and nobody wants it", name)
		}
	}
}

// What does not answer: the kernel gives up, or the caller does after two
// retransmits. Before those it says nothing of the backend.
func TestKernelFailuresOfSilence(t *testing.T) {
	p := newPlane(t, small)
	const vip, slow = "10.96.0.10:80", "10.96.0.11:80"
	p.vip("db", vip).to(silent(t))
	p.vip("slow", slow).to(silent(t))
	passive(t, p, "db", "slow")
	from := reports(t, p)

	impatient, waiting := kerneltest.Start(t, p.root), kerneltest.Start(t, p.root)
	begun := make(chan error, 1)
	patient := impatient.MustSocket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	failsWith(t, "connect", patient.Connect(slow), unix.EINPROGRESS)

	// The caller leaves at once: nothing.
	s := impatient.MustSocket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	failsWith(t, "connect", s.Connect(vip), unix.EINPROGRESS)
	s.Close()

	// The kernel gives up at the first retransmit.
	go func() {
		s := waiting.TCP(vip)
		if err := s.SetOption(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 10); err != nil {
			begun <- err
			return
		}
		begun <- s.Connect(vip)
	}()
	if f := nextFailure(t, "timeout", from); f.VIP != "db" || f.Err != unix.ETIMEDOUT {
		t.Errorf("reported: %+v", f)
	}
	if err := <-begun; err != unix.ETIMEDOUT {
		t.Errorf("connect: %v", err)
	}

	// Two retransmits are some three seconds; then the caller leaves.
	if err := until("two retransmits", func() bool { return patient.Retransmits() >= 2 }); err != nil {
		t.Fatal(err)
	}
	patient.Close()
	if f := nextFailure(t, "given up", from); f.VIP != "slow" || f.Err != 0 {
		t.Errorf("reported: %+v", f)
	}
}

// silent is a listener whose queue is full: what comes is dropped.
func silent(t *testing.T) string {
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
	filler, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(filler) })
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(filler, name); err != nil {
		t.Fatal(err)
	}
	return boundTo(t, fd)
}

// The buffer is full: what is dropped is counted, and the backend's next failure
// is reported.
func TestKernelFailuresLost(t *testing.T) {
	p := newPlane(t, small)
	const each = 32 // bytes of a record
	n := (1<<16)/each + 100
	c := kerneltest.Start(t, p.root)
	v := p.vip("db", "10.96.0.10:80")
	passive(t, p, "db")
	refused := netip.MustParseAddrPort(closedPort(t))
	for i := range n {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), refused.Port())
		v.to(a.String())
		s := c.TCP("10.96.0.10:80")
		failsWith(t, "connect", s.Connect("10.96.0.10:80"), unix.ECONNREFUSED)
		s.Close()
	}
	lost := p.stats().FailuresLost
	if lost == 0 {
		t.Fatalf("%d reports in %d bytes, and none is lost", n, 1<<16)
	}
	from := reports(t, p)
	for range n - int(lost) {
		nextFailure(t, "what was in the buffer", from)
	}
	s := c.TCP("10.96.0.10:80")
	failsWith(t, "connect", s.Connect("10.96.0.10:80"), unix.ECONNREFUSED)
	f := nextFailure(t, "after the loss", from)
	if want := fmt.Sprintf("127.1.%d.%d", (n-1)>>8, (n-1)&255); f.Backend.Addr().String() != want {
		t.Errorf("reported: %+v, want %s", f, want)
	}
}

// The next process keeps the optional hook until it says what it wants.
func TestKernelFailuresAfterAdoption(t *testing.T) {
	p := newPlane(t, small)
	const vip = "10.96.0.10:80"
	p.vip("db", vip).to(closedPort(t))
	passive(t, p, "db")
	c := kerneltest.Start(t, p.root)
	store := inStore(t, p.Datapath)
	if err := p.Close(); err != nil { // killed
		t.Fatal(err)
	}
	s := c.TCP(vip)
	failsWith(t, "connect while there is no daemon", s.Connect(vip), unix.ECONNREFUSED)
	s.Close()

	d, err := Adopt(store, Options{Build: Build()})
	if err != nil {
		t.Fatal(err)
	}
	p.Datapath = d
	if err := d.Attach(p.dir); err != nil {
		t.Fatal(err)
	}
	if d.links[slicelbProgSlbSockops] == nil {
		t.Error("adopted without the hook")
	}
	passive(t, p, "db")
	from := reports(t, p)
	s = c.TCP(vip)
	failsWith(t, "connect", s.Connect(vip), unix.ECONNREFUSED)
	if f := nextFailure(t, "adopted", from); f.VIP != "db" {
		t.Errorf("reported: %+v", f)
	}
}
