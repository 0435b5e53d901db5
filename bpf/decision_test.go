package bpf

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/internal/scale"
)

// listening reads decisions into a channel that holds whatever a test makes.
func listening(t *testing.T, p *plane) (*DecisionReader, <-chan Decision) {
	t.Helper()
	r, err := p.Decisions()
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan Decision, 1<<16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			var d Decision
			if r.Read(&d) != nil {
				return
			}
			out <- d
		}
	}()
	t.Cleanup(func() {
		r.Close()
		<-done
	})
	return r, out
}

func next(t *testing.T, from <-chan Decision) Decision {
	t.Helper()
	select {
	case d := <-from:
		return d
	case <-time.After(time.Minute):
		t.Fatal("no decision was told")
		return Decision{}
	}
}

func everything() *Watch { return &Watch{Told: Tolds, AnyGroup: true} }

// watchFor renews what is wanted for as long as the test takes.
func watchFor(t *testing.T, p *plane, r *DecisionReader, w *Watch) {
	t.Helper()
	r.Poll(true)
	if err := p.Watch(w); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(WatchLease / 10)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				if err := p.Watch(w); err != nil {
					t.Errorf("watch: %v", err)
				}
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
}

// What is told says who called, what for, and what came of it.
func TestKernelDecisionTold(t *testing.T) {
	p := newPlane(t, small)
	backend := kerneltest.Serve(t, "backend", "127.0.0.1:0")
	const vip, vip6 = "10.96.0.20:80", "[fd00:96::20]:80"
	v := p.vip("db", vip).to(backend.Addr.String())
	u := p.vip("db udp", vip+"/udp").to(backend.Addr.String())
	p.vip("down6", vip6)
	web, proxy := p.newGroup("web", true), p.newGroup("proxy", false)
	v.view(p.newGroup("apart", true), Cell{Action: PassHidden})
	slice := p.root.Make(t, "web.slice")
	inner := slice.Make(t, "a.service", "container")
	p.mapTo(slice, web, 0)
	other := p.root.Make(t, "proxy.slice")
	p.mapTo(other, proxy, 0)

	r, told := listening(t, p)
	watchFor(t, p, r, everything())
	c := kerneltest.Start(t, inner)
	cookie, err := netnsCookie()
	if err != nil {
		t.Fatal(err)
	}
	where := inner
	check := func(what string, want Decision) {
		t.Helper()
		got := next(t, told)
		if got.Time == 0 || got.Socket == 0 || got.PID == 0 {
			t.Errorf("%s: %+v", what, got)
		}
		got.Time, got.Socket, got.PID = 0, 0, 0
		want.Netns, want.TGID = cookie, uint32(c.Pid)
		// Only now: exec gives a process its name after the parent is told that it went well.
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", c.Pid))
		if err != nil {
			t.Fatal(err)
		}
		copy(want.Comm[:], comm[:len(comm)-1])
		copy(want.Dir[:], filepath.Base(where.Path))
		copy(want.Parent[:], filepath.Base(filepath.Dir(where.Path)))
		if where == p.root {
			want.Parent = got.Parent // the hierarchy's root, whatever it calls itself
		}
		if want.Cell == 0 {
			want.Cell = want.VIP
		}
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	succeeds(t, "connect", c.TCP(vip).Connect(vip))
	check("TCP", Decision{
		Cgroup: inner.ID(t), Member: slice.ID(t), Asked: netip.MustParseAddrPort(vip), Backend: backend.Addr, Proto: TCP,
		Told: Translated, Reason: Chosen, Group: web, VIP: v.cell, Index: v.backends[backend.Addr],
	})
	free := c.UDP(vip)
	for range 3 { // the later ones keep what the first was given: nothing is decided
		succeeds(t, "sendto", free.SendTo("x", vip, 0))
	}
	check("sendto", Decision{
		Cgroup: inner.ID(t), Member: slice.ID(t), Asked: netip.MustParseAddrPort(vip), Backend: backend.Addr, Proto: UDP,
		Send: true, Told: Translated, Reason: Chosen, Group: web, VIP: u.cell, Index: u.backends[backend.Addr],
	})
	failsWith(t, "down", c.TCP(vip6).Connect(vip6), unix.EHOSTUNREACH)
	check("down", Decision{
		Cgroup: inner.ID(t), Member: slice.ID(t), Asked: netip.MustParseAddrPort(vip6), Proto: TCP,
		Told: Rejected, Reason: AllDown, Group: web, VIP: v.cell + 2,
	})
	succeeds(t, "enter", c.Enter(other))
	where = other
	_ = c.UDP(vip).Connect(vip)
	check("translate = false", Decision{
		Cgroup: other.ID(t), Member: other.ID(t), Asked: netip.MustParseAddrPort(vip), Proto: UDP,
		Told: Passed, Reason: GroupAlone, Group: proxy, VIP: u.cell,
	})
	succeeds(t, "enter", c.Enter(p.root))
	where = p.root
	direct := backend.Addr.String()
	succeeds(t, "no VIP", c.TCP(direct).Connect(direct))
	succeeds(t, "connect", c.TCP(vip).Connect(vip))
	check("host", Decision{
		Cgroup: p.root.ID(t), Asked: netip.MustParseAddrPort(vip), Backend: backend.Addr, Proto: TCP,
		Told: Translated, Reason: Chosen, VIP: v.cell, Index: v.backends[backend.Addr],
	})
	if p.VIPName(v.cell) != "db" || p.GroupName(web) != "web" || p.GroupName(0) != "" {
		t.Errorf("names: %q, %q, %q", p.VIPName(v.cell), p.GroupName(web), p.GroupName(0))
	}
	if i, ok := p.GroupIndex("proxy"); !ok || i != proxy {
		t.Errorf("proxy's index: %d, %v", i, ok)
	}
	if d := cmp.Diff([]uint32{v.cell}, p.VIPCells("db")); d != "" {
		t.Errorf("cells of db: %s", d)
	}
}

// The programs tell what is wanted and no more.
func TestKernelDecisionFilter(t *testing.T) {
	p := newPlane(t, small)
	backend := kerneltest.Serve(t, "backend", "127.0.0.1:0").Addr.String()
	a := p.vip("a", "10.96.0.1:80").to(backend)
	p.vip("b", "10.96.0.2:80").to(backend)
	p.vip("c", "10.96.0.3:80")
	mark := p.vip("mark", "10.96.0.9:80").to(backend)
	web := p.newGroup("web", true)
	slice := p.root.Make(t, "web.slice")
	p.mapTo(slice, web, 0)
	c := kerneltest.Start(t, p.root)
	r, told := listening(t, p)
	// connects goes to both VIPs, from the host and from the group.
	connects := func() {
		for _, g := range []*kerneltest.Cgroup{p.root, slice} {
			succeeds(t, "enter", c.Enter(g))
			for _, to := range []string{"10.96.0.1:80", "10.96.0.2:80"} {
				succeeds(t, "connect", c.TCP(to).Connect(to))
			}
		}
	}
	if connects(); len(told) != 0 {
		t.Fatal("told with nobody watching")
	}
	for _, tt := range []struct {
		name string
		w    Watch
		want int
	}{
		{"everything", Watch{Told: Tolds, AnyGroup: true}, 4},
		{"one group", Watch{Told: Tolds, Group: web}, 2},
		{"the host", Watch{Told: Tolds}, 2},
		{"one VIP", Watch{Told: Tolds, AnyGroup: true, Cells: []uint32{a.cell}}, 2},
		{"one VIP's two families", Watch{Told: Tolds, AnyGroup: true, Cells: []uint32{a.cell + 1, a.cell}}, 4},
		{"both", Watch{Told: Tolds, Group: web, Cells: []uint32{a.cell}}, 1},
		{"another verdict", Watch{Told: []Told{Passed, Denied}, AnyGroup: true}, 0},
	} {
		r.Poll(true)
		if err := p.Watch(&tt.w); err != nil {
			t.Fatal(err)
		}
		connects()
		for range tt.want {
			next(t, told)
		}
		// What follows is told after whatever was wrongly told.
		if err := p.Watch(everything()); err != nil {
			t.Fatal(err)
		}
		succeeds(t, "mark", c.TCP("10.96.0.9:80").Connect("10.96.0.9:80"))
		if d := next(t, told); d.VIP != mark.cell {
			t.Errorf("%s: told more: %+v", tt.name, d)
		}
		if err := p.Watch(nil); err != nil {
			t.Fatal(err)
		}
	}
}

// A loop that is refused fills no buffer: each group has a budget, what exceeds
// it is counted, and each refusal is in the one or the other. // edge D32
func TestKernelDecisionBudget(t *testing.T) {
	p := newPlane(t, small)
	const vip = "10.96.0.10:80"
	p.vip("down", vip)
	loud, quiet := p.newGroup("loud", true), p.newGroup("quiet", true)
	for i, name := range []string{"loud.slice", "quiet.slice"} {
		p.mapTo(p.root.Make(t, name), []uint32{loud, quiet}[i], 0)
	}
	_, told := listening(t, p)
	c := kerneltest.Start(t, p.root)
	succeeds(t, "enter", c.Enter(p.root.Make(t, "loud.slice")))
	const calls = 5000
	out, err := c.Run(kerneltest.Load{To: vip, Count: calls})
	if err != nil {
		t.Fatal(err)
	}
	took := out.Connections[calls-1].Until - out.Connections[0].At
	succeeds(t, "enter", c.Enter(p.root.Make(t, "quiet.slice")))
	failsWith(t, "connect", c.TCP(vip).Connect(vip), unix.EHOSTUNREACH)

	counts := map[uint32]int{}
	for counts[quiet] == 0 {
		d := next(t, told)
		counts[d.Group]++
		if d.Told != Rejected || d.Reason != AllDown {
			t.Errorf("told %v, %v", d.Told, d.Reason)
		}
	}
	if n := uint64(counts[loud]) + p.Suppressed()[loud]; n != calls {
		t.Errorf("%d told and %d suppressed, of %d", counts[loud], p.Suppressed()[loud], calls)
	}
	windows := int(took/(1<<slbTellWindowShift)) + 2
	if counts[loud] > windows*slbTellBurst {
		t.Errorf("%d told in %v", counts[loud], took)
	}
	if p.Suppressed()[quiet] != 0 {
		t.Errorf("quiet was suppressed %d times", p.Suppressed()[quiet])
	}
}

// What was told without a wakeup is read soon, though the reader knows of no
// watcher: no wakeup comes for what follows it either.
func TestKernelDecisionsUnannounced(t *testing.T) {
	p := newPlane(t, small)
	backend := kerneltest.Serve(t, "backend", "127.0.0.1:0").Addr.String()
	const vip = "10.96.0.10:80"
	p.vip("a", vip).to(backend)
	c := kerneltest.Start(t, p.root)
	_, told := listening(t, p)
	if err := p.Watch(everything()); err != nil {
		t.Fatal(err)
	}
	atomic.StoreUint64(p.watch.until, 1<<62) // for as long as the test takes
	succeeds(t, "connect", c.TCP(vip).Connect(vip))
	next(t, told)
}

// The macros of api.h, which are in no type.
const slbTellBurst, slbTellWindowShift = 10, 30

// Nobody reads: calls go on, and what was dropped is counted exactly. // fault F16
func TestKernelDecisionsUnread(t *testing.T) {
	opts := small
	opts.decisions = 1 << 16
	p := newPlane(t, opts)
	backend := kerneltest.Serve(t, "backend", "127.0.0.1:0").Addr.String()
	const vip = "10.96.0.10:80"
	p.vip("a udp", vip+"/udp").to(backend)
	r, err := p.Decisions()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := kerneltest.Start(t, p.root)
	// Minutes of nobody reading come to no more than this: a full buffer.
	calls := max(5000, scale.Count(1_000_000))
	r.Poll(true)
	if err := p.Watch(everything()); err != nil {
		t.Fatal(err)
	}
	atomic.StoreUint64(p.watch.until, 1<<62) // for as long as the test takes
	wrong, err := c.Hammer(calls, []string{vip}, nil)
	if err != nil || len(wrong) != 0 {
		t.Fatalf("%v, %v", err, wrong)
	}
	// At the same pace as when nobody wants anything: the quickest of some rounds.
	pace := func() time.Duration {
		begun := time.Now()
		if wrong, err := c.Hammer(1000, []string{vip}, nil); err != nil || len(wrong) != 0 {
			t.Fatalf("%v, %v", err, wrong)
		}
		return time.Since(begun)
	}
	full, quiet := time.Hour, time.Hour
	for range 10 {
		before := p.stats().DecisionsLost
		full = min(full, pace())
		if n := p.stats().DecisionsLost - before; n != 1000 {
			t.Fatalf("%d of 1000 lost with a full buffer", n)
		}
		atomic.StoreUint64(p.watch.told, 0)
		quiet = min(quiet, pace())
		atomic.StoreUint64(p.watch.told, ^uint64(0))
		calls += 1000
	}
	t.Logf("1000 connects: %v with a full buffer, %v with nothing wanted", full, quiet)
	if full > 2*quiet {
		t.Errorf("1000 connects took %v with a full buffer, %v with nothing wanted", full, quiet)
	}
	lost := p.stats().DecisionsLost
	if lost == 0 || lost >= uint64(calls) {
		t.Fatalf("%d of %d lost: the buffer was not filled", lost, calls)
	}
	var read atomic.Uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		var d Decision
		for r.Read(&d) == nil {
			read.Add(1)
		}
	}()
	err = until("what was kept is read", func() bool { return read.Load()+lost == uint64(calls) })
	if err != nil {
		t.Errorf("%d read, %d lost of %d: %v", read.Load(), lost, calls, err)
	}
	r.Close()
	<-done
}

// A watcher that was killed costs nothing for longer than its lease: the first
// decision after it takes the wish away.
func TestKernelWatchLease(t *testing.T) {
	p := newPlane(t, small)
	backend := kerneltest.Serve(t, "backend", "127.0.0.1:0").Addr.String()
	const vip = "10.96.0.10:80"
	p.vip("a", vip).to(backend)
	c := kerneltest.Start(t, p.root)
	r, told := listening(t, p)
	r.Poll(true)
	if err := p.Watch(everything()); err != nil {
		t.Fatal(err)
	}
	succeeds(t, "connect", c.TCP(vip).Connect(vip))
	next(t, told)
	// As if it had been asked for a while ago.
	atomic.StoreUint64(p.watch.until, 1)
	succeeds(t, "connect", c.TCP(vip).Connect(vip))
	if n := atomic.LoadUint64(p.watch.until); n != 0 {
		t.Errorf("the lease is still %d", n)
	}
	if err := p.Watch(everything()); err != nil {
		t.Fatal(err)
	}
	// And a process that takes the data plane over knows of no watcher.
	adopted, err := Adopt(inStore(t, p.Datapath), Options{Build: Build()})
	if err != nil {
		t.Fatal(err)
	}
	defer adopted.Close()
	if n := atomic.LoadUint64(adopted.watch.until); n != 0 {
		t.Errorf("adopted with a lease of %d", n)
	}
	select {
	case d := <-told:
		t.Errorf("told after the lease: %+v", d)
	default:
	}
}
