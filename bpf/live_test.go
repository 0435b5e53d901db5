package bpf

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/internal/scale"
	"golang.org/x/sys/unix"
)

// liveIs waits: what the kernel closes for a process, it may close after it.
func liveIs(t *testing.T, what string, v *service, backend string, want uint64) {
	t.Helper()
	i := v.backends[netip.MustParseAddrPort(backend)]
	var n uint64
	err := until(what, func() bool {
		var err error
		if n, err = v.p.LiveOf(i); err != nil {
			t.Fatal(err)
		}
		return n == want
	})
	if err != nil {
		t.Errorf("%v: %d open, want %d", err, n, want)
	}
	if all := v.p.counters().Live; all[i] != n || len(all) > 0 && n == 0 && all[i] != 0 {
		t.Errorf("%s: %d of one, %v of all", what, n, all)
	}
}

func recount(t *testing.T, p *plane, want int) {
	t.Helper()
	corrected := 0
	for range 2 {
		n, err := p.Recount()
		if err != nil {
			t.Fatal(err)
		}
		corrected += n
	}
	if corrected != want {
		t.Errorf("%d counts corrected, want %d", corrected, want)
	}
}

// A socket counts from connect until its last descriptor is closed or it connects
// elsewhere, whatever became of the connection.
func TestKernelLive(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0").Addr.String()
	const vip, refused, down = "10.96.0.10:80", "10.96.0.11:80", "10.96.0.12:80"
	v := p.vip("a", vip, vip+"/udp").to(a)
	none := p.vip("refused", refused).to("127.0.0.1:1")
	p.vip("down", down, down+"/udp")
	c := kerneltest.Start(t, p.root)

	tcp, udp := c.TCP(vip), c.UDP(vip)
	succeeds(t, "connect", tcp.Connect(vip))
	succeeds(t, "connect UDP", udp.Connect(vip))
	free := c.UDP(vip)
	succeeds(t, "sendto", free.SendTo("x", vip, 0))
	liveIs(t, "one of each, and a datagram", v, a, 2)
	succeeds(t, "connect UDP again", udp.Connect(vip))
	liveIs(t, "connected twice", v, a, 2)
	failsWith(t, "connect to nobody", udp.Connect(down), unix.EHOSTUNREACH)
	liveIs(t, "keeps its peer", v, a, 2)
	succeeds(t, "connect UDP directly", udp.Connect(a))
	liveIs(t, "connected directly", v, a, 1)
	succeeds(t, "connect UDP", udp.Connect(vip))
	succeeds(t, "disconnect", udp.Disconnect())
	liveIs(t, "disconnected: no program runs", v, a, 2)
	succeeds(t, "close", udp.Close())
	liveIs(t, "closed", v, a, 1)

	lost := c.TCP(refused)
	failsWith(t, "connect where nobody listens", lost.Connect(refused), unix.ECONNREFUSED)
	liveIs(t, "refused", none, "127.0.0.1:1", 1)
	succeeds(t, "connect elsewhere", lost.Connect(vip))
	liveIs(t, "left", none, "127.0.0.1:1", 0)
	liveIs(t, "came", v, a, 2)
	succeeds(t, "close", lost.Close())

	// The last descriptor counts, whoever has it, and whatever becomes of him.
	other := kerneltest.Start(t, p.root)
	passed, err := tcp.Pass(other)
	if err != nil {
		t.Fatal(err)
	}
	succeeds(t, "close", tcp.Close())
	answers(t, "passed", passed, "a")
	liveIs(t, "passed", v, a, 1)
	for range 20 {
		succeeds(t, "connect", other.TCP(vip).Connect(vip))
	}
	liveIs(t, "more", v, a, 21)
	recount(t, p, 0)
	if err := other.Kill(); err != nil {
		t.Fatal(err)
	}
	liveIs(t, "killed", v, a, 0)
	recount(t, p, 0)
}

// The kernel shows the close of an MPTCP socket to no program that knows it: it
// does not count, and a user who loops leaks nothing. // edge D14, fault F31
func TestKernelLiveMPTCP(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0").Addr.String()
	const vip = "10.96.0.10:80"
	v := p.vip("a", vip).to(a)
	c := kerneltest.Start(t, p.root)
	n := scale.Count(10_000)
	for range n {
		s, err := c.Socket(unix.AF_INET, unix.SOCK_STREAM, ipprotoMPTCP)
		if err != nil {
			kerneltest.Lacks(t, "MPTCP", "5.6", err)
		}
		if !succeeds(t, "connect", s.Connect(vip)) {
			break
		}
		answers(t, "MPTCP", s, "a")
		succeeds(t, "close", s.Close())
	}
	if got := p.counters().Backends[v.backends[netip.MustParseAddrPort(a)]].Connects; got != uint64(n) {
		t.Errorf("%d connects, want %d", got, n)
	}
	liveIs(t, "after a loop", v, a, 0)
	recount(t, p, 0)
	liveIs(t, "recounted", v, a, 0)
}

// Counts that are off, for whatever reason, are put right after two recounts;
// sockets of every network namespace are seen.
func TestKernelRecount(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0").Addr.String()
	const vip, far = "10.96.0.10:80", "192.0.2.1:80"
	v := p.vip("a", vip).to(a, far)
	w := p.vip("udp", vip+"/udp").to(a)
	c := kerneltest.Start(t, p.root)
	for range 3 {
		succeeds(t, "connect", c.UDP(vip).Connect(vip))
	}
	recount(t, p, 0)

	// Elsewhere there is no route to the backend: connect fails, and the socket
	// counts until it is closed.
	elsewhere := p.vip("elsewhere", "10.96.0.11:53/udp").to(far)
	var away *kerneltest.Client
	kerneltest.NewNetns(t).Do(t, func() { away = kerneltest.Start(t, p.root) })
	s := away.UDP(vip)
	if err := s.Connect("10.96.0.11:53"); err == nil {
		t.Error("there is a route to the backend")
	}
	liveIs(t, "in another network namespace", elsewhere, far, 1)
	recount(t, p, 0)

	add := func(v *service, backend string, n int64) {
		atomic.AddInt64(&p.backendCounters[v.backends[netip.MustParseAddrPort(backend)]].Live, n)
	}
	add(w, a, 5)
	add(v, far, -2)
	add(elsewhere, far, 1)
	if n, err := p.Recount(); n != 0 || err != nil {
		t.Errorf("the first time corrected %d, %v", n, err)
	}
	liveIs(t, "once too high", w, a, 8)
	liveIs(t, "below zero", v, far, 0)
	if n, err := p.Recount(); n != 3 || err != nil {
		t.Errorf("the second time corrected %d, %v", n, err)
	}
	liveIs(t, "corrected", w, a, 3)
	liveIs(t, "corrected", v, far, 0)
	liveIs(t, "corrected", elsewhere, far, 1)
	succeeds(t, "close", s.Close())
	liveIs(t, "closed", elsewhere, far, 0)
	recount(t, p, 0)
}

// A removed backend's sockets count for nobody, so its count is not off; nor is
// what was found of it added to the next one that has its index.
func TestKernelRecountRemoved(t *testing.T) {
	p := newPlane(t, small)
	const vip, a = "10.96.0.10:53", "127.0.0.1:9"
	v := p.vip("a", vip+"/udp").to(a)
	c := kerneltest.Start(t, p.root)
	for range 3 {
		succeeds(t, "connect", c.UDP(vip).Connect(vip))
	}
	i := v.backends[netip.MustParseAddrPort(a)]
	v.state(a, BackendFree)
	recount(t, p, 0)
	p.apply(SetBackendCell{i, BackendCell{State: BackendActive, Gen: 2}})
	if p.correct(i, 1, -3) {
		t.Error("the next backend's count was corrected by the former one's")
	}
	if n := atomic.LoadInt64(&p.backendCounters[i].Live); n != 3 {
		t.Errorf("count %d", n)
	}
	if !p.correct(i, 2, -3) {
		t.Error("a backend's own count was not corrected")
	}
}

// interrupted prints in pieces, and is interrupted before each and at the end.
type interrupted struct {
	pieces []string
	ready  bool
}

func (r *interrupted) Read(b []byte) (int, error) {
	if r.ready = !r.ready; r.ready {
		return 0, &os.PathError{Op: "read", Path: "iterator", Err: unix.EAGAIN}
	}
	if len(r.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.pieces[0])
	r.pieces = r.pieces[1:]
	return n, nil
}

// The kernel interrupts a walk that has printed nothing for a million sockets, and
// what it prints is read in pieces.
func TestReadWalkInterrupted(t *testing.T) {
	var got []string
	err := readWalk(&interrupted{pieces: []string{"aab", "", "b", "ccdde", "ef"}}, 2, func(record []byte) {
		got = append(got, string(record))
	})
	if diff := cmp.Diff([]string{"aa", "bb", "cc", "dd", "ee"}, got); diff != "" || err != nil {
		t.Errorf("read (-want +got), %v:\n%s", err, diff)
	}
}

// Under load nothing that is right is corrected, and in the end nothing is open.
func TestKernelLiveUnderLoad(t *testing.T) {
	p := newPlane(t, small)
	const vip = "10.96.0.10:80"
	v := p.vip("load", vip)
	var servers []string
	for i := range 3 {
		servers = append(servers, kerneltest.Serve(t, fmt.Sprint(i), "127.0.0.1:0").Addr.String())
	}
	v.to(servers...)
	n := scale.Count(100_000)
	done := make(chan error, 2)
	for range 2 {
		c := kerneltest.Start(t, p.root)
		go func() {
			_, err := c.Run(kerneltest.Load{To: vip, Count: n})
			done <- err
		}()
	}
	recounts := 0
	for running := 2; running > 0; recounts++ {
		select {
		case err := <-done:
			succeeds(t, "load", err)
			running--
		default:
		}
		if corrected, err := p.Recount(); corrected != 0 || err != nil {
			t.Errorf("recount %d corrected %d, %v", recounts, corrected, err)
		}
	}
	t.Logf("%d recounts during %d connections", recounts, 2*n)
	for _, s := range servers {
		liveIs(t, "after the load", v, s, 0)
	}
}

// Counts outlive the process; what closed while no program looked is found out.
// Sockets of a backend whose index has another owner count for nobody.
func TestKernelLiveAdopted(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0").Addr.String()
	const vip = "10.96.0.10:80"
	v := p.vip("a", vip).to(a)
	c := kerneltest.Start(t, p.root)
	var open []*kerneltest.Socket
	for range 4 {
		s := c.TCP(vip)
		succeeds(t, "connect", s.Connect(vip))
		open = append(open, s)
	}
	store := inStore(t, p.Datapath)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	succeeds(t, "close while there is no daemon", open[0].Close())
	d, err := Adopt(store, small)
	if err != nil {
		t.Fatal(err)
	}
	p.Datapath = d
	liveIs(t, "adopted", v, a, 3)
	recount(t, p, 0)

	if err := d.links[slicelbProgSlbSockRelease].Close(); err != nil {
		t.Fatal(err)
	}
	delete(d.links, slicelbProgSlbSockRelease)
	succeeds(t, "close unseen", open[1].Close())
	liveIs(t, "unseen", v, a, 3)
	if err := d.Attach(p.dir); err != nil {
		t.Fatal(err)
	}
	recount(t, p, 1)
	liveIs(t, "recounted", v, a, 2)

	i := v.backends[netip.MustParseAddrPort(a)]
	p.apply(SetBackendCell{i, BackendCell{State: BackendFree, Gen: 1}})
	succeeds(t, "close of a backend that is gone", open[2].Close())
	p.apply(SetBackend{i, Backend{Addr: netip.MustParseAddrPort("127.0.0.1:2"), Gen: 2, Cell: v.cell}},
		SetBackendCell{i, BackendCell{State: BackendActive, Gen: 2}})
	v.backends = map[netip.AddrPort]uint32{netip.MustParseAddrPort("127.0.0.1:2"): i}
	succeeds(t, "close of an earlier owner's", open[3].Close())
	liveIs(t, "another owner", v, "127.0.0.1:2", 0)
	if n := atomic.LoadInt64(&p.backendCounters[i].Live); n != 0 {
		t.Errorf("the count stands at %d", n)
	}
	recount(t, p, 0)
}

func TestDriftOf(t *testing.T) {
	for _, test := range []struct {
		name                         string
		before, now, n, came, wanted int64
	}{
		{"right", 5, 5, 5, 0, 0},
		{"too high", 7, 7, 5, 0, 2},
		{"too low", 3, 3, 5, 0, -2},
		{"opened meanwhile", 5, 8, 8, 3, 0},
		{"opened, not seen", 5, 8, 5, 3, 0},
		{"closed meanwhile", 8, 5, 5, 0, 0},
		{"opened and closed", 5, 5, 9, 4, 0},
		{"closed and opened", 5, 5, 1, 4, 0},
		{"too high by more than closed", 9, 9, 2, 4, 3},
		{"too low by more than opened", 5, 5, 11, 4, -2},
		{"counter began anew", 5, 5, 3, -7, 2},
	} {
		if got := driftOf(test.before, test.now, test.n, test.came); got != test.wanted {
			t.Errorf("%s: off by %d, want %d", test.name, got, test.wanted)
		}
	}
}
