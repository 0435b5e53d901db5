package bpf

import (
	"sync/atomic"
	"testing"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// A connect is timed while somebody wants to know, counted once for its VIP, and
// told to who watches; UDP has no answer to wait for.
func TestKernelConnectTimed(t *testing.T) {
	p := newPlane(t, small)
	p.Want(SockOps)
	if err := p.Attach(p.dir); err != nil {
		t.Fatal(err)
	}
	backend := kerneltest.Serve(t, "backend", "127.0.0.1:0").Addr.String()
	const vip = "10.96.0.10:80"
	v := p.vip("a", vip).to(backend)
	p.vip("a udp", vip+"/udp").to(backend)
	group := p.newGroup("web", true)
	web := p.root.Make(t, "web.slice")
	p.mapTo(web, group, 0)
	c := kerneltest.Start(t, web)
	r, told := listening(t, p)

	succeeds(t, "connect, untimed", c.TCP(vip).Connect(vip))
	if l := p.Latencies(); len(l) != 0 {
		t.Errorf("timed though nobody wants to know: %v", l)
	}
	if err := p.Time(true); err != nil {
		t.Fatal(err)
	}
	watchFor(t, p, r, everything())
	const calls = 5
	for range calls {
		s := c.TCP(vip)
		succeeds(t, "connect", s.Connect(vip))
		asked, answered := next(t, told), next(t, told)
		if asked.Told != Translated || answered.Told != Connected {
			t.Fatalf("told %v, then %v", asked.Told, answered.Told)
		}
		if answered.Took <= 0 || answered.Socket != asked.Socket || answered.Asked != asked.Asked ||
			answered.Backend != asked.Backend || answered.Group != group || answered.VIP != v.cell {
			t.Errorf("asked %+v, answered %+v", asked, answered)
		}
	}
	udp := c.UDP(vip)
	succeeds(t, "connect UDP", udp.Connect(vip))
	if d := next(t, told); d.Told != Translated {
		t.Errorf("UDP: told %v", d.Told)
	}
	direct := c.TCP(backend)
	succeeds(t, "connect to no VIP", direct.Connect(backend))

	var n uint32
	all := p.Latencies()
	for _, in := range all[v.cell] {
		n += in
	}
	if n != calls || len(all) != 1 {
		t.Errorf("%d timed in %v", n, all)
	}

	// The lease of a daemon that was killed: the next answer takes it away.
	atomic.StoreUint64(p.timeUntil, 1)
	succeeds(t, "connect", c.TCP(vip).Connect(vip))
	if until := atomic.LoadUint64(p.timeUntil); until != 0 {
		t.Errorf("the lease is still %d", until)
	}
	if d := p.Latencies()[v.cell].Minus(all[v.cell]); d != (Latency{}) {
		t.Errorf("timed after the lease: %v", d)
	}
	// And a cell that is given up counts for nobody.
	p.apply(SetCellInfo{v.cell, CellInfo{}})
	p.apply(SetCellInfo{v.cell, CellInfo{VIP: "b", Family: 4}})
	if l := p.Latencies(); len(l) != 0 {
		t.Errorf("the next one's: %v", l)
	}
}

func TestLatencyBuckets(t *testing.T) {
	if LatencyBound(0).Microseconds() != 32 || LatencyBound(14).Milliseconds() != 524 || LatencyBound(15) <= LatencyBound(14) {
		t.Errorf("%v, %v, %v", LatencyBound(0), LatencyBound(14), LatencyBound(15))
	}
	if d := (Latency{0: 3}).Minus(Latency{0: 1<<32 - 2}); d[0] != 5 {
		t.Errorf("a wrap counts %d", d[0])
	}
}
