package bpf

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/internal/scale"
	"golang.org/x/sys/unix"
)

// No backend: EHOSTUNREACH for connect and for sendmsg, and no packet leaves for
// the VIP; counted for the group. // edge D32 D37
func TestKernelNoBackend(t *testing.T) {
	p := newPlane(t, small)
	for _, f := range []struct{ vip, to string }{
		{"10.96.0.10:80", "10.96.0.10:80"},
		{"[fd00:96::10]:80", "[fd00:96::10]:80"},
		{"10.96.0.11:80", mapped("10.96.0.11:80")},
	} {
		to := f.to
		trap := kerneltest.Serve(t, "trap", f.vip) // nothing may get here
		tcp, udp := p.vip("down "+f.vip, f.vip), p.vip("down udp "+f.vip, f.vip+"/udp")
		c := kerneltest.Start(t, p.root)
		failsWith(t, "connect", c.TCP(to).Connect(to), unix.EHOSTUNREACH)
		failsWith(t, "connect UDP", c.UDP(to).Connect(to), unix.EHOSTUNREACH)
		s := c.UDP(to)
		failsWith(t, "sendto", s.SendTo("x", to, 0), unix.EHOSTUNREACH)
		if n, err := s.SendMany("x", to, to); n > 0 || err != unix.EHOSTUNREACH {
			t.Errorf("sendmmsg sent %d, %v", n, err)
		}
		if trap.Seen("x") != 0 {
			t.Error("a packet left for the VIP")
		}
		n := p.counters()
		if n.Cells[tcp.cell] != (Counters{Rejected: 1}) || n.Cells[udp.cell] != (Counters{Rejected: 3}) ||
			n.Pairs[ViewKey{udp.cell, 0}] != (Counters{Rejected: 3}) {
			t.Errorf("counted %+v", n)
		}

		// when_down = "pass": the address itself.
		tcp.set(Cell{Action: PassDown})
		s = c.TCP(to)
		succeeds(t, "pass", s.Connect(to))
		answers(t, "pass", s, "trap")
	}
}

// Weights are numbers of slots; what was chosen is counted, once.
func TestKernelWeights(t *testing.T) {
	p := newPlane(t, small)
	const vip, a, b = "10.96.0.10:53", "127.0.0.1:9", "127.0.0.2:9"
	v := p.vip("weighted", vip+"/udp").to(a, a, a, b)
	c := kerneltest.Start(t, p.root)
	const n = 2000
	wrong, err := c.Hammer(n, []string{vip}, nil)
	if err != nil || len(wrong) > 0 {
		t.Fatal(wrong, err)
	}
	counted := p.counters()
	onA, onB := int(counted.Backends[1].Connects), int(counted.Backends[2].Connects)
	// Six standard deviations of a binomial with p = 3/4 are 117.
	if onA+onB != n || onA < 1500-117 || onA > 1500+117 {
		t.Errorf("3:1 came out as %d:%d", onA, onB)
	}
	if got := counted.Cells[v.cell]; got != (Counters{Connects: n}) {
		t.Errorf("counted %+v", got)
	}
}

// Backends come, go and change weight under load: no connection fails, and none
// goes to a backend that was taken out before it began. // edge D34
func TestKernelChangeUnderLoad(t *testing.T) {
	p := newPlane(t, small)
	const vip = "10.96.0.10:80"
	var servers []string
	for i := range 4 {
		s := kerneltest.Serve(t, fmt.Sprint(i), "127.0.0.1:0")
		servers = append(servers, s.Addr.String())
	}
	v := p.vip("changing", vip).to(servers...)
	out := make([][]period, len(servers)) // when a backend was surely out

	n := scale.Count(100_000)
	var clients sync.WaitGroup
	results := make([]kerneltest.LoadResult, 2)
	for i := range results {
		c := kerneltest.Start(t, p.root)
		clients.Go(func() { results[i], _ = c.Run(kerneltest.Load{To: vip, Count: n}) })
	}
	done := make(chan struct{})
	go func() {
		clients.Wait()
		close(done)
	}()
	changes := 0
	for running := true; running; changes++ {
		select {
		case <-done:
			running = false
		default:
		}
		gone := changes % len(servers)
		var left []string
		for i, s := range servers {
			for range 1 + (changes+i)%3 { // weights 1 to 3
				if i != gone {
					left = append(left, s)
				}
			}
		}
		if p.slot > uint32(small.Slots)-64 {
			p.slot = 0
		}
		v.to(left...)
		from := kerneltest.Monotonic()
		if changes%10 == 0 {
			if err := p.Barrier(); err != nil {
				t.Fatal(err)
			}
		}
		until := kerneltest.Monotonic()
		out[gone] = append(out[gone], period{from, until})
		v.to(servers...)
	}
	t.Logf("%d changes during %d connections", changes, 2*n)

	for _, result := range results {
		if len(result.Connections) != n {
			t.Errorf("%d connections of %d", len(result.Connections), n)
		}
		failed := 0
		for _, r := range result.Connections {
			if r.Errno != 0 || r.Peer.String() != vip {
				if failed++; failed == 1 {
					t.Errorf("%+v; hooks: %v", r, p.Check())
				}
				continue
			}
			var i int
			if _, err := fmt.Sscan(r.Server, &i); err != nil {
				t.Fatal(err)
			}
			for _, o := range out[i] {
				if r.At >= o.from && r.Until < o.until {
					t.Errorf("%+v, which was out from %v to %v", r, o.from, o.until)
				}
			}
		}
		if failed > 0 {
			t.Errorf("%d of %d failed", failed, n)
		}
	}
}

type period struct{ from, until time.Duration }

// An unconnected socket keeps its backend while others come and go, and while it
// drains; it gets another when it is down. // edge D35 D36
func TestKernelUDPKeepsItsBackend(t *testing.T) {
	p := newPlane(t, small)
	const vip = "10.96.0.10:53"
	servers := map[string]string{}
	var all []string
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		s := kerneltest.Serve(t, name, "127.0.0.1:0")
		servers[name] = s.Addr.String()
		all = append(all, s.Addr.String())
	}
	v := p.vip("dns", vip+"/udp").to(all[:3]...)
	c := kerneltest.Start(t, p.root)
	s := c.UDP(vip)
	ask := func() string {
		t.Helper()
		succeeds(t, "sendto", s.SendTo("x", vip, 0))
		name, from, err := s.ReceiveFrom()
		if err != nil || from != vip {
			t.Errorf("answer from %q, %v", from, err)
		}
		return name[:max(0, len(name)-1)]
	}
	mine := ask()
	for i := range 40 {
		without := []string{servers[mine]}
		without = append(without, all[i%6], all[(i+3)%6])
		v.to(without...)
		if got := ask(); got != mine {
			t.Fatalf("change %d: moved from %s to %s", i, mine, got)
		}
	}

	others := []string{}
	for _, a := range all {
		if a != servers[mine] {
			others = append(others, a)
		}
	}
	v.state(servers[mine], BackendDraining)
	v.to(others...)
	for range 10 {
		if got := ask(); got != mine {
			t.Errorf("left a draining backend for %s", got)
		}
		fresh := c.UDP(vip)
		succeeds(t, "sendto", fresh.SendTo("x", vip, 0))
		if name, _, err := fresh.ReceiveFrom(); err != nil || name == mine+"\n" {
			t.Errorf("a new flow went to %q, which drains: %v", name, err)
		}
		fresh.Close()
	}

	v.state(servers[mine], BackendDown)
	next := ask()
	if next == mine {
		t.Error("stays with a backend that is down")
	}
	for range 10 {
		if got := ask(); got != next {
			t.Errorf("moved on from %s to %s", next, got)
		}
	}
}

// What a connected socket knows is not in the LRUs: churn of unconnected sockets
// at 130 % of their size takes no name from it, and the lost replies are counted.
// edge D33 D39, fault F15
func TestKernelLRUChurn(t *testing.T) {
	opts := small
	opts.UDPFlows = 1024
	p := newPlane(t, opts)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:53"
	p.vip("tcp", vip).to(a.Addr.String())
	p.vip("udp", vip+"/udp").to(a.Addr.String())
	c := kerneltest.Start(t, p.root)

	var connected, free []*kerneltest.Socket
	for range 20 {
		tcp, udp := c.TCP(vip), c.UDP(vip)
		succeeds(t, "connect", tcp.Connect(vip))
		succeeds(t, "connect", udp.Connect(vip))
		connected = append(connected, tcp, udp)
	}
	// Each socket is a flow; as many stay open as fit, then a third more.
	n := int(opts.UDPFlows) * 13 / 10
	for range n {
		s := c.UDP(vip)
		if err := s.SendTo("x", vip, 0); err != nil {
			t.Fatal(err)
		}
		free = append(free, s)
	}
	for i, s := range connected {
		peerIs(t, "connected", s, vip)
		if i%2 == 1 {
			succeeds(t, "send", s.Send("x"))
			answersFrom(t, "connected", s, "a", vip)
		}
	}
	before := p.stats().ReplyUnknown
	lost := 0
	for _, s := range free {
		data, from, err := s.ReceiveFrom()
		if err != nil || data != "a\n" {
			t.Fatalf("answer %q, %v", data, err)
		}
		switch from {
		case vip:
		case a.Addr.String():
			lost++
		default:
			t.Errorf("answer from %s", from)
		}
	}
	if counted := p.stats().ReplyUnknown - before; int(counted) != lost {
		t.Errorf("%d replies lost their name, %d counted", lost, counted)
	}
	if lost == 0 {
		t.Errorf("no reply of %d lost its name in a table of %d", n, opts.UDPFlows)
	}
	t.Logf("%d of %d replies lost their name", lost, n)
}

// What does not fit is refused by name, and what is there goes on. // fault F14
func TestKernelTablesFull(t *testing.T) {
	opts := Options{Slots: 64, UDPFlows: 4096, Capacities: Limits{
		Frontends: 4, Cells: 8, Views: 4, Backends: 8, Groups: 4, Cgroups: 4, Expect: 4,
	}}
	p := newPlane(t, opts)
	if got := p.Limits(); got != (Limits{4, 8, 4, 8, 64, 4, 4, 4, PolicyLines}) {
		t.Errorf("limits %+v", got)
	}
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:80"
	p.vip("a", vip).to(a.Addr.String())

	addr := func(i int) FrontendKey { return frontendKey(fmt.Sprintf("10.96.1.%d:80", i)) }
	full := func(table string, limit uint32, key string, write func(i uint32) Write) {
		t.Helper()
		for i := range uint32(100) {
			err := p.Apply(write(i))
			if err == nil {
				continue
			}
			var f *FullError
			if !errors.As(err, &f) || !errors.Is(err, ErrFull) || *f != (FullError{table, limit, key}) {
				t.Errorf("%s: %v", table, err)
			}
			return
		}
		t.Errorf("%s never gets full", table)
	}
	full("frontends", 4, "10.96.1.3:80/tcp", func(i uint32) Write { return PutFrontend{addr(int(i)), 2} })
	full("frontend_refs", 4, "index 4", func(i uint32) Write { return SetFrontendRef{2 + i, FrontendRef{}} })
	full("cells", 8, "index 8", func(i uint32) Write { return SetCell{2 + i, Cell{}} })
	full("cell_infos", 8, "index 8", func(i uint32) Write { return SetCellInfo{2 + i, CellInfo{}} })
	full("views", 4, "cell=1 group=4", func(i uint32) Write { return PutView{ViewKey{1, i}, 2} })
	full("slots", 64, "10 slots at 60", func(i uint32) Write { return SetSlots{10 + 10*i, make10(1)} })
	full("slots", 64, "8 slots at 57", func(i uint32) Write {
		return SetCell{2, Cell{Base: 50 + i, Count: 8, Action: Balance}}
	})
	full("backends", 8, "index 8", func(i uint32) Write {
		return SetBackend{2 + i, Backend{Addr: a.Addr, Gen: 1}}
	})
	full("backends", 8, "index 8", func(i uint32) Write { return SetSlots{20, []uint32{1 + i}} })
	full("backend_cells", 8, "index 8", func(i uint32) Write { return SetBackendCell{2 + i, BackendCell{}} })
	full("groups", 4, "index 4", func(i uint32) Write { return SetGroup{1 + i, Group{Name: "x"}} })
	full("cgroups", 4, "cgroup 1004", func(i uint32) Write { return PutCgroup{uint64(1000 + i), Rule{}} })
	full("expect", 4, "node=0x5 rest", func(i uint32) Write { return PutExpect{ExpectKey{Node: 1 + i}, Rule{}} })
	full("expect_patterns", 4, "node=0x1 #4", func(i uint32) Write {
		return PutPattern{PatternKey{1, i}, Pattern{}}
	})

	s := kerneltest.Start(t, p.root).TCP(vip)
	succeeds(t, "connect", s.Connect(vip))
	answers(t, "what was there before", s, "a")
}

func make10(v uint32) []uint32 {
	out := make([]uint32, 10)
	for i := range out {
		out[i] = v
	}
	return out
}

// Puts do not replace, sets do not insert, deletes do not mind.
func TestKernelApply(t *testing.T) {
	p := newPlane(t, small)
	key := frontendKey("10.96.0.10:80")
	p.apply(
		SetFrontendRef{1, FrontendRef{Cell: 1, Gen: 1}},
		PutFrontend{key, 1},
		PutCgroup{77, Rule{Group: 1}},
		PutExpect{ExpectKey{1, "a.slice"}, Rule{Group: 1}},
		PutPattern{PatternKey{1, 0}, Pattern{"a", "b", Rule{Group: 1}}},
		PutView{ViewKey{1, 1}, 2},
	)
	for _, w := range []Write{
		PutFrontend{key, 2},
		PutCgroup{77, Rule{Group: 2}},
		PutExpect{ExpectKey{1, "a.slice"}, Rule{Group: 2}},
		PutPattern{PatternKey{1, 0}, Pattern{}},
		PutView{ViewKey{1, 1}, 3},
	} {
		if err := p.Apply(w); !errors.Is(err, ErrExist) {
			t.Errorf("%s: %v", w, err)
		}
	}
	for _, w := range []Write{
		SetCgroup{78, Rule{}},
		SetExpect{ExpectKey{2, "a.slice"}, Rule{}},
		SetExpect{ExpectKey{1, "b.slice"}, Rule{}},
		SetPattern{PatternKey{1, 1}, Rule{}},
	} {
		if err := p.Apply(w); !errors.Is(err, ErrNotExist) {
			t.Errorf("%s: %v", w, err)
		}
	}
	// An entry whose memory is another cgroup's by now.
	other, err := encodeCgroup(Rule{Group: 2}, 80)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.maps[slicelbMapCgroups].Put(uint64(79), other); err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(SetCgroup{79, Rule{Group: 1}}); !errors.Is(err, ErrNotExist) {
		t.Errorf("set what is another cgroup's: %v", err)
	}
	var is uint64
	if err := p.maps[slicelbMapCgroups].Lookup(uint64(79), &is); err != nil || is != other {
		t.Errorf("another cgroup's word %#x became %#x, %v", other, is, err)
	}
	p.apply(DelCgroup{79})
	for _, w := range []Write{
		SetCell{0, Cell{}}, SetFrontendRef{0, FrontendRef{}}, SetBackend{0, Backend{}},
		SetBackendCell{0, BackendCell{}}, PutFrontend{frontendKey("10.96.0.11:80"), 0},
		SetSlots{0, []uint32{0}}, PutFrontend{FrontendKey{}, 1},
	} {
		if err := p.Apply(w); err == nil {
			t.Errorf("%s: no error", w)
		}
	}
	dump, err := p.Dump()
	if err != nil {
		t.Fatal(err)
	}
	if dump.Frontends[key] != 1 || dump.Cgroups[77] != (Rule{Group: 1}) ||
		dump.Expect[ExpectKey{1, "a.slice"}] != (Rule{Group: 1}) || dump.Views[ViewKey{1, 1}] != 2 ||
		dump.Patterns[PatternKey{1, 0}] != (Pattern{"a", "b", Rule{Group: 1}}) {
		t.Errorf("dump %+v", dump)
	}
	for range 2 {
		p.apply(
			DelFrontend{key}, DelCgroup{77}, DelExpect{ExpectKey{1, "a.slice"}},
			DelPattern{PatternKey{1, 0}}, DelView{ViewKey{1, 1}},
		)
	}
	if dump, err = p.Dump(); err != nil {
		t.Fatal(err)
	}
	if len(dump.Frontends)+len(dump.Cgroups)+len(dump.Expect)+len(dump.Patterns)+len(dump.Views) != 0 {
		t.Errorf("dump %+v", dump)
	}
	if len(p.frontends.users) != 0 {
		t.Errorf("bits of the filter are left: %v", p.frontends.users)
	}
}

// Counters of a VIP or group that is gone are not those of the next one under
// its index.
func TestKernelCountersOfReusedIndexes(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:80"
	v := p.vip("first", vip).to(a.Addr.String())
	web := p.newGroup("web", true)
	p.mapTo(p.root, web, 0)
	c := kerneltest.Start(t, p.root)
	succeeds(t, "connect", c.TCP(vip).Connect(vip))
	if n := p.counters(); n.Cells[v.cell].Connects != 1 || n.Pairs[ViewKey{v.cell, web}].Connects != 1 ||
		n.Backends[1].Connects != 1 {
		t.Errorf("counted %+v", n)
	}
	v.remove()
	p.apply(SetCellInfo{v.cell, CellInfo{}}, SetBackendCell{1, BackendCell{Gen: 1}})
	p.apply(
		SetCellInfo{v.cell, CellInfo{VIP: "second", Family: 4}},
		SetBackend{1, Backend{Addr: a.Addr, Gen: 2, Cell: v.cell}},
	)
	if n := p.counters(); n.Cells[v.cell] != (Counters{}) || len(n.Pairs) != 0 ||
		n.Backends[1] != (BackendCounters{}) {
		t.Errorf("the second VIP starts with %+v", n)
	}
}

// Waiting for running programs works again and again, and makes nothing that
// nobody closes. What it is for on one CPU, a preempted program that holds an old
// word, cannot be made to happen here: only the kernel decides who is preempted.
func TestKernelBarrier(t *testing.T) {
	p := newPlane(t, small)
	before := openDescriptors(t)
	for range 3 {
		if err := p.Barrier(); err != nil {
			t.Error(err)
		}
	}
	if n := openDescriptors(t) - before; n != 2 {
		t.Errorf("%d descriptors for three barriers, want the two maps", n)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	closed := openDescriptors(t)
	if err := p.Barrier(); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if n := openDescriptors(t); n != closed {
		t.Errorf("%d descriptors after Close, were %d", n, closed)
	}
}

// Hints name what was made and removed near an anchor, and only there.
func TestKernelEvents(t *testing.T) {
	p := newPlane(t, small)
	r, err := p.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	slice := p.root.Make(t, "a.slice")
	p.mapTo(slice, 1, 5)
	p.apply(PutExpect{ExpectKey{5, "a-b.slice"}, Rule{Group: 2}})

	p.root.Make(t, "elsewhere").Remove(t)
	plain := slice.Make(t, "x.scope")
	anchor := slice.Make(t, "a-b.slice")
	plainID, anchorID := plain.ID(t), anchor.ID(t)
	anchor.Remove(t)
	want := []Event{
		{Kind: Mkdir, ID: plainID, Parent: slice.ID(t)},
		{Kind: Mkdir, ID: anchorID, Parent: slice.ID(t), Mapped: true},
		{Kind: Rmdir, ID: anchorID, Parent: slice.ID(t), Mapped: true},
	}
	for _, w := range want {
		got, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if got.Time <= 0 || got.Time > kerneltest.Monotonic() {
			t.Errorf("at %v", got.Time)
		}
		got.Time = 0
		if got != w {
			t.Errorf("event %+v, want %+v", got, w)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(); err == nil {
		t.Error("read from a closed reader")
	}
}

// Nobody reads: what does not fit is counted, to the last one. // fault F16
func TestKernelEventsLost(t *testing.T) {
	opts := small
	opts.events = 1 << 15
	p := newPlane(t, opts)
	slice := p.root.Make(t, "a.slice")
	p.mapTo(slice, 1, 0)
	// A record takes 40 bytes of the ring, its header included.
	const fits = 1 << 15 / 40
	n := fits + 500
	c := kerneltest.Start(t, p.root)
	if err := c.Churn(slice, n); err != nil {
		t.Fatal(err)
	}
	lost := int(p.stats().EventsLost)
	r, err := p.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range n - lost {
		if _, err := r.Read(); err != nil {
			t.Fatal(err)
		}
	}
	if lost < 500 || r.ring.AvailableBytes() != 0 {
		t.Errorf("of %d events %d were counted as lost, and %d bytes are left over", n, lost, r.ring.AvailableBytes())
	}
}
