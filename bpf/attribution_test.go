package bpf

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/internal/scale"
	"golang.org/x/sys/unix"
)

const groupsVIP = "10.96.0.10:80"

// byGroup is a VIP that answers with the group's name: "host", "a" or "b".
func byGroup(t *testing.T, p *plane) (a, b uint32) {
	t.Helper()
	host := kerneltest.Serve(t, "host", "127.0.0.1:0")
	serverA := kerneltest.Serve(t, "a", "127.0.0.1:0")
	serverB := kerneltest.Serve(t, "b", "127.0.0.1:0")
	v := p.vip("who", groupsVIP).to(host.Addr.String())
	for name, group := range map[string]*uint32{"a": &a, "b": &b} {
		server := serverA
		if name == "b" {
			server = serverB
		}
		*group = p.newGroup(name, true)
		base, count := v.slots(server.Addr.String())
		v.view(*group, Cell{Base: base, Count: count, Action: Balance})
	}
	return a, b
}

// isIn connects and expects the answer of a group.
func isIn(t *testing.T, what string, c *kerneltest.Client, want string) {
	t.Helper()
	s := c.TCP(groupsVIP)
	defer s.Close()
	if succeeds(t, what, s.Connect(groupsVIP)) {
		answers(t, what, s, want)
		peerIs(t, what, s, groupsVIP)
	}
}

// The nearest mapped ancestor decides, however deep the caller is. // edge D23
func TestKernelNearestAncestor(t *testing.T) {
	p := newPlane(t, small)
	a, b := byGroup(t, p)
	base := depth(p.root)

	outer := p.root.Make(t, "a.slice")
	c := kerneltest.Start(t, p.root)
	isIn(t, "no group", c, "host")
	p.mapTo(outer, a, 0)
	succeeds(t, "enter", c.Enter(outer))
	isIn(t, "the anchor itself", c, "a")

	inner := outer.Make(t, "a-b.slice")
	under := inner.Make(t, "x.scope", "container")
	succeeds(t, "enter", c.Enter(under))
	isIn(t, "three below", c, "a")
	p.mapTo(inner, b, 0)
	isIn(t, "two below a deeper anchor", c, "b")
	p.mapTo(inner, 0, 5) // on the way to something, but no group
	isIn(t, "below a cgroup that has no group of its own", c, "a")

	// Depths around the deepest level that an anchor may have, and far below.
	deep := outer
	at := map[int]bool{1: true, 31: true, 32: true, 33: true, 100: true}
	for level := base + 2; level <= 100; level++ {
		deep = deep.Make(t, fmt.Sprintf("d%d", level))
		if at[level] {
			succeeds(t, "enter", c.Enter(deep))
			isIn(t, fmt.Sprintf("caller at level %d", level), c, "a")
		}
	}
	succeeds(t, "enter", c.Enter(p.root))
	isIn(t, "caller above every anchor", c, "host")
}

// An anchor at level 31, the deepest, is found from there and from below; one at
// 32 is not looked for: the configuration refuses it. // edge D23
func TestKernelDeepestAnchor(t *testing.T) {
	p := newPlane(t, small)
	a, b := byGroup(t, p)
	anchor := p.root
	for level := depth(p.root) + 1; level <= 31; level++ {
		anchor = anchor.Make(t, fmt.Sprintf("d%d", level))
	}
	p.mapTo(anchor, a, 0)
	c := kerneltest.Start(t, anchor)
	isIn(t, "at level 31", c, "a")
	below := anchor.Make(t, "d32", "d33")
	succeeds(t, "enter", c.Enter(below))
	isIn(t, "at level 33", c, "a")
	tooDeep := anchor.Make(t, "d32")
	p.mapTo(tooDeep, b, 0)
	isIn(t, "below an anchor at level 32", c, "a")
}

// depth is a cgroup's level in the hierarchy.
func depth(c *kerneltest.Cgroup) int {
	level := 0
	var root unix.Stat_t
	for path := c.Path; ; path += "/.." {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Ino == 1 || st.Dev != root.Dev && level > 0 {
			return level
		}
		root = st
		level++
	}
}

// The calling task decides, not where the socket was made: used by another
// process by inheritance, or passed over. // edge D21 D22, threat P11
func TestKernelCallerDecides(t *testing.T) {
	p := newPlane(t, small)
	a, b := byGroup(t, p)
	inA, inB := p.root.Make(t, "a.slice"), p.root.Make(t, "b.slice")
	p.mapTo(inA, a, 0)
	p.mapTo(inB, b, 0)
	ca, cb := kerneltest.Start(t, inA), kerneltest.Start(t, inB)

	s := ca.TCP(groupsVIP)
	succeeds(t, "enter", ca.Enter(inB))
	succeeds(t, "connect", s.Connect(groupsVIP))
	answers(t, "made in a, its process moved to b", s, "b")
	succeeds(t, "enter", ca.Enter(inA))

	passed, err := ca.TCP(groupsVIP).Pass(cb)
	if err != nil {
		t.Fatal(err)
	}
	succeeds(t, "connect", passed.Connect(groupsVIP))
	answers(t, "made in a, passed to b", passed, "b")
	peerIs(t, "made in a, passed to b", passed, groupsVIP)

	// A socket that is connected stays as it is.
	s = ca.TCP(groupsVIP)
	succeeds(t, "connect", s.Connect(groupsVIP))
	if passed, err = s.Pass(cb); err != nil {
		t.Fatal(err)
	}
	answers(t, "connected in a, read in b", passed, "a")
	peerIs(t, "connected in a, asked in b", passed, groupsVIP)

	// A socket made where no group is: PID 1's, for a socket unit.
	outside := kerneltest.Start(t, p.root.Make(t, "init.scope"))
	if passed, err = outside.TCP(groupsVIP).Pass(ca); err != nil {
		t.Fatal(err)
	}
	succeeds(t, "connect", passed.Connect(groupsVIP))
	answers(t, "made outside, used in a", passed, "a")
}

// Through io_uring, inline or by a worker: the group is the submitter's. // threat P2
func TestKernelIoUring(t *testing.T) {
	kerneltest.NeedsUring(t)
	p := newPlane(t, small)
	a, _ := byGroup(t, p)
	slice := p.root.Make(t, "a.slice")
	p.mapTo(slice, a, 0)
	c := kerneltest.Start(t, slice)
	for _, async := range []bool{false, true} {
		s := c.TCP(groupsVIP)
		err := s.ConnectUring(groupsVIP, async)
		succeeds(t, "connect", err)
		answers(t, "io_uring", s, "a")
		peerIs(t, "io_uring", s, groupsVIP)
	}
}

// expectBelow tells the kernel what will be made below the plane's own cgroup.
func (p *plane) expectBelow(t *testing.T, node uint32, name string, rule Rule) {
	t.Helper()
	p.apply(PutExpect{ExpectKey{node, name}, rule})
}

// A directory that the configuration names is mapped before anything can run in
// it: literal, by pattern, on the way, below a split anchor. // edge D24
func TestKernelMapsAnchors(t *testing.T) {
	p := newPlane(t, small)
	a, b := byGroup(t, p)
	const root, way, split = 1, 2, 3
	p.mapTo(p.root, 0, root)
	p.expectBelow(t, root, "a.slice", Rule{Group: a})
	p.expectBelow(t, root, "way", Rule{Node: way})
	p.expectBelow(t, way, "b.slice", Rule{Group: b})
	p.apply(
		PutPattern{PatternKey{root, 0}, Pattern{"web@", ".slice", Rule{Group: a}}},
		PutPattern{PatternKey{root, 1}, Pattern{"", ".slice", Rule{Group: b}}},
		PutPattern{PatternKey{root, 2}, Pattern{"jobs", "", Rule{Group: a, Node: split}}},
		PutPattern{PatternKey{split, 0}, Pattern{"", ".scope", Rule{Group: b, Split: true}}},
	)
	p.expectBelow(t, split, "", Rule{Group: a, Node: split}) // elsewhere, the search goes on
	c := kerneltest.Start(t, p.root)

	tests := []struct {
		path []string
		want string
	}{
		{[]string{"a.slice"}, "a"},                         // literal before pattern
		{[]string{"a.slice", "x.scope", "container"}, "a"}, // inherited
		{[]string{"way"}, "host"},                          // no group of its own
		{[]string{"way", "b.slice"}, "b"},                  // two steps
		{[]string{"way", "c.slice"}, "host"},               // not expected there
		{[]string{"web@1.slice"}, "a"},                     // the first pattern
		{[]string{"web@.slice"}, "a"},                      // the star may be empty
		{[]string{"web@slice"}, "host"},                    // prefix and suffix may not overlap
		{[]string{"other.slice"}, "b"},                     // the second pattern
		{[]string{"slice"}, "host"},                        // too short
		{[]string{"jobs1", "x.scope"}, "b"},                // a split child
		{[]string{"jobs2", "deep", "er", "x.scope"}, "b"},  // wherever it is
		{[]string{"jobs3", "x.service"}, "a"},              // not a split child
		{[]string{"jobs4", "x.scope", "y.scope"}, "b"},     // not below the first
		{[]string{longest(255)}, "host"},                   // no rule, the longest name
		{[]string{"jobs" + longest(251), "x.scope"}, "b"},  // a rule, the longest name
	}
	for _, tt := range tests {
		g := p.root.Make(t, tt.path...)
		succeeds(t, "enter", c.Enter(g))
		isIn(t, fmt.Sprint(tt.path), c, tt.want)
	}
	succeeds(t, "enter", c.Enter(p.root))

	g := p.root.Make(t, "jobs5", "x.scope")
	dump, err := p.Dump()
	if err != nil {
		t.Fatal(err)
	}
	if rule := dump.Cgroups[g.ID(t)]; rule != (Rule{Group: b, Split: true}) {
		t.Errorf("split child is mapped to %s", rule)
	}
	// The scope is removed: its entry goes with it. // edge D25
	id := g.ID(t)
	g.Remove(t)
	if dump, err = p.Dump(); err != nil {
		t.Fatal(err)
	}
	if rule, ok := dump.Cgroups[id]; ok {
		t.Errorf("removed cgroup is mapped to %s", rule)
	}
	if n := p.stats().AnchorsMapped; n == 0 || p.stats().CgroupsFull != 0 {
		t.Errorf("%+v", p.stats())
	}
}

func longest(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'x'
	}
	return string(b)
}

// The first thing that a process does in a new cgroup is connect: below a mapped
// anchor, and in an anchor that was not there a moment before. // edge D24, fault F12
func TestKernelConnectAtOnce(t *testing.T) {
	p := newPlane(t, small)
	a, b := byGroup(t, p)
	const node = 1
	slice := p.root.Make(t, "a.slice")
	p.mapTo(slice, a, 0)
	p.mapTo(p.root, 0, node)
	p.expectBelow(t, node, "b.slice", Rule{Group: b})
	c := kerneltest.Start(t, slice)

	n := scale.Count(10_000)
	for _, tt := range []struct{ parent, name, want string }{
		{slice.Path, "run-%d.scope", "a"},
		{p.root.Path, "b.slice", "b"}, // always the same name
	} {
		result, err := c.ConnectAtOnce(n, tt.parent, tt.name, groupsVIP, slice)
		if err != nil {
			t.Fatal(err)
		}
		wrong := 0
		for _, r := range result.Connections {
			if r.Errno != 0 || r.Server != tt.want {
				wrong++
				t.Logf("%+v", r)
			}
		}
		if wrong > 0 || len(result.Connections) != n {
			t.Errorf("%s: %d of %d in the wrong group", tt.name, wrong, len(result.Connections))
		}
	}
}

// Cgroups of version 1 make the same tracepoint fire, with ids of their own.
func TestKernelIgnoresOtherHierarchies(t *testing.T) {
	p := newPlane(t, small)
	dir := t.TempDir()
	// A hierarchy of its own, without a controller.
	if err := unix.Mount("none", dir, "cgroup", 0, "none,name=slicelbtest"); err != nil {
		t.Skipf("no version 1 here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	p.apply(
		PutCgroup{st.Ino, Rule{Node: 1}},
		PutExpect{ExpectKey{1, "a.slice"}, Rule{Group: 1}},
	)
	if err := os.Mkdir(dir+"/a.slice", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(dir+"/a.slice", &st); err != nil {
		t.Fatal(err)
	}
	dump, err := p.Dump()
	if err != nil {
		t.Fatal(err)
	}
	if rule, ok := dump.Cgroups[st.Ino]; ok {
		t.Errorf("a cgroup of version 1 is mapped to %s", rule)
	}
	p.apply(PutCgroup{st.Ino, Rule{Group: 1}})
	if err := os.Remove(dir + "/a.slice"); err != nil {
		t.Fatal(err)
	}
	if dump, err = p.Dump(); err != nil {
		t.Fatal(err)
	}
	if _, ok := dump.Cgroups[st.Ino]; !ok {
		t.Error("the end of a cgroup of version 1 took the entry of its number")
	}
}

// Who was delegated a cgroup makes directories in it until there is no more room for
// his: root's are mapped all the same, and what is removed makes room again.
// edge T24, fault F14
func TestKernelCgroupsOfOthers(t *testing.T) {
	const nobody = 65534
	opts := small
	opts.Capacities.Cgroups = 16 // of which two are root's
	p := newPlane(t, opts)
	a, _ := byGroup(t, p)
	delegated := p.root.Make(t, "delegated")
	if err := os.Chown(delegated.Path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	p.mapTo(p.root, 0, 1)
	p.mapTo(delegated, 0, 1)
	p.apply(PutPattern{PatternKey{1, 0}, Pattern{"", ".slice", Rule{Group: a}}})
	asNobody := func(command string, first, last int) {
		t.Helper()
		args := []string{}
		for i := first; i < last; i++ {
			args = append(args, fmt.Sprintf("%s/%d.slice", delegated.Path, i))
		}
		cmd := exec.Command(command, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	asNobody("mkdir", 0, 20)
	if full, mapped := p.stats().CgroupsFull, p.stats().AnchorsMapped; mapped != 12 || full != 8 {
		t.Errorf("%d mapped and %d not, want 12 and 8", mapped, full)
	}
	c := kerneltest.Start(t, p.root)
	for _, name := range []string{"one.slice", "two.slice"} {
		succeeds(t, "enter", c.Enter(p.root.Make(t, name)))
		isIn(t, "root's "+name, c, "a")
	}

	// What the daemon deletes and inserts counts, and so does what is found.
	asNobody("rmdir", 12, 20)
	asNobody("rmdir", 0, 10)
	p.apply(PutCgroup{1 << 40, Rule{Group: a}})
	p.apply(DelCgroup{1 << 40})
	p.apply(DelCgroup{1 << 40})
	asNobody("mkdir", 0, 9)
	if full, mapped := p.stats().CgroupsFull, p.stats().AnchorsMapped; mapped != 22 || full != 9 {
		t.Errorf("%d mapped and %d not, want 22 and 9", mapped, full)
	}
	atomic.StoreInt64(p.cgroupRoom, 1000)
	if _, err := p.Cgroups(); err != nil {
		t.Fatal(err)
	}
	if room := atomic.LoadInt64(p.cgroupRoom); room != 0 {
		t.Errorf("room for %d, want none beside 14 entries", room)
	}
	asNobody("rmdir", 0, 9)
	asNobody("rmdir", 10, 12)
}

// The table is full: the anchor is counted, what is mapped stays. // edge T24, fault F14
func TestKernelCgroupsFull(t *testing.T) {
	opts := small
	opts.Capacities.Cgroups = 4
	p := newPlane(t, opts)
	a, _ := byGroup(t, p)
	p.mapTo(p.root, 0, 1)
	p.apply(PutPattern{PatternKey{1, 0}, Pattern{"", ".slice", Rule{Group: a}}})
	var last *kerneltest.Cgroup
	for i := range 4 {
		last = p.root.Make(t, fmt.Sprintf("%d.slice", i))
	}
	c := kerneltest.Start(t, p.root)
	if n := p.stats().CgroupsFull; n != 1 {
		t.Errorf("%d anchors not mapped, want 1", n)
	}
	succeeds(t, "enter", c.Enter(last))
	isIn(t, "an anchor for which there was no room", c, "host")
	succeeds(t, "enter", c.Enter(&kerneltest.Cgroup{Path: p.root.Path + "/0.slice"}))
	isIn(t, "an anchor that was mapped before", c, "a")

	err := p.Apply(PutCgroup{1 << 40, Rule{Group: a}})
	var full *FullError
	if !errors.As(err, &full) || full.Table != "cgroups" || full.Limit != 4 || full.Key != "cgroup 1099511627776" {
		t.Errorf("error %v", err)
	}
	succeeds(t, "enter", c.Enter(p.root))
}

// A group with translate = false, and one that stands in except or not in
// clients, reach the address itself. // edge D31
func TestKernelUntranslated(t *testing.T) {
	p := newPlane(t, small)
	backend := kerneltest.Serve(t, "backend", "127.0.0.1:0")
	const vip = "10.96.0.20:80"
	kerneltest.Serve(t, "itself", vip)
	v := p.vip("proxied", vip).to(backend.Addr.String())
	u := p.vip("proxied udp", vip+"/udp").to(backend.Addr.String())

	proxy := p.newGroup("proxy", false)
	except, hidden := p.newGroup("except", true), p.newGroup("hidden", true)
	refused, down := p.newGroup("refused", true), p.newGroup("down", true)
	for _, v := range []*service{v, u} {
		v.view(except, Cell{Action: PassExcept})
		v.view(hidden, Cell{Action: PassHidden})
		v.view(refused, Cell{Action: RejectHidden})
		v.view(down, Cell{Action: PassDown})
	}
	c := kerneltest.Start(t, p.root)
	for name, tt := range map[string]struct {
		group uint32
		want  string
		errno syscall.Errno
	}{
		"host":    {0, "backend", 0},
		"proxy":   {proxy, "itself", 0},
		"except":  {except, "itself", 0},
		"hidden":  {hidden, "itself", 0},
		"refused": {refused, "", unix.EHOSTUNREACH},
		"down":    {down, "itself", 0},
	} {
		g := p.root.Make(t, name+".slice")
		if tt.group != 0 {
			p.mapTo(g, tt.group, 0)
		}
		succeeds(t, "enter", c.Enter(g))
		tcp, udp, free := c.TCP(vip), c.UDP(vip), c.UDP(vip)
		if tt.errno != 0 {
			failsWith(t, name, tcp.Connect(vip), tt.errno)
			failsWith(t, name, udp.Connect(vip), tt.errno)
			failsWith(t, name, free.SendTo("x", vip, 0), tt.errno)
			if n := p.counters().Pairs[ViewKey{v.cell, tt.group}]; n != (Counters{Rejected: 1}) {
				t.Errorf("%s: counted %+v", name, n)
			}
			continue
		}
		succeeds(t, name, tcp.Connect(vip))
		answers(t, name, tcp, tt.want)
		peerIs(t, name, tcp, vip)
		succeeds(t, name, udp.Connect(vip))
		succeeds(t, name, udp.Send("x"))
		answersFrom(t, name, udp, tt.want, vip)
		succeeds(t, name, free.SendTo("x", vip, 0))
		answersFrom(t, name, free, tt.want, vip)
		want := Counters{Passed: 1}
		if tt.want == "backend" {
			want = Counters{Connects: 1}
		}
		if n := p.counters().Pairs[ViewKey{v.cell, tt.group}]; n != want {
			t.Errorf("%s: counted %+v, want %+v", name, n, want)
		}
	}
	succeeds(t, "enter", c.Enter(p.root))
}

// A loopback backend is the daemon's loopback, not the caller's. // edge D29
func TestKernelLoopbackOfAnotherNamespace(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	v6 := kerneltest.Serve(t, "v6", "[::1]:0")
	const vip, vip6 = "10.96.0.10:80", "[fd00:96::10]:80"
	p.vip("a", vip).to(a.Addr.String())
	p.vip("a udp", vip+"/udp").to(a.Addr.String())
	p.vip("v6", vip6).to(v6.Addr.String())
	here := kerneltest.Start(t, p.root)

	var there *kerneltest.Client
	kerneltest.NewNetns(t).Do(t, func() {
		// The same ports on that namespace's own loopback must not be reached.
		kerneltest.Serve(t, "trap", a.Addr.String())
		kerneltest.Serve(t, "trap", v6.Addr.String())
		there = kerneltest.Start(t, p.root)
	})
	for _, to := range []string{vip, vip6} {
		s := here.TCP(to)
		succeeds(t, "from here", s.Connect(to))
		failsWith(t, "from there", there.TCP(to).Connect(to), unix.EHOSTUNREACH)
	}
	failsWith(t, "from there", there.UDP(vip).Connect(vip), unix.EHOSTUNREACH)
	failsWith(t, "from there", there.UDP(vip).SendTo("x", vip, 0), unix.EHOSTUNREACH)
	if n := p.stats().LoopbackNetns; n != 4 {
		t.Errorf("counted %d, want 4", n)
	}
}

// Moving a cgroup between groups: each connection sees the one or the other.
// edge T21 T22
func TestKernelGroupMoves(t *testing.T) {
	p := newPlane(t, small)
	a, b := byGroup(t, p)
	slice := p.root.Make(t, "a.slice")
	p.mapTo(slice, a, 0)
	c := kerneltest.Start(t, slice)
	id := slice.ID(t)

	n := scale.Count(100_000)
	done := make(chan kerneltest.LoadResult)
	go func() {
		result, _ := c.Run(kerneltest.Load{To: groupsVIP, Count: n})
		done <- result
	}()
	for i := 0; ; i++ {
		select {
		case result := <-done:
			got := map[string]int{}
			for _, r := range result.Connections {
				if r.Errno != 0 && got[""] == 0 {
					t.Errorf("%+v; hooks: %v", r, p.Check())
				}
				got[r.Server]++
			}
			if len(result.Connections) != n || got["a"]+got["b"] != n {
				t.Errorf("of %d connections: %v", n, got)
			}
			return
		default:
			p.apply(SetCgroup{id, Rule{Group: []uint32{a, b}[i%2]}})
		}
	}
}

// While one build's program takes over from another's both run for a moment:
// the second finds the directory mapped, which is no lack of room.
func TestKernelMapsOnceWithTwoPrograms(t *testing.T) {
	p := newPlane(t, small)
	const root = 1
	group := p.newGroup("a", true)
	p.mapTo(p.root, 0, root)
	p.expectBelow(t, root, "a.slice", Rule{Group: group})
	// On 6.1 a tracepoint does not run one program twice: another build's
	// is another program.
	spec, err := newSpec()
	if err != nil {
		t.Fatal(err)
	}
	given := make(map[string]*ebpf.Map)
	for name, m := range p.maps {
		if stored(name) {
			given[name] = m
			if !strings.HasPrefix(name, ".") {
				spec.Maps[name].MaxEntries = m.MaxEntries()
			}
		}
	}
	coll, err := load(spec, given, small)
	if err != nil {
		t.Fatal(err)
	}
	defer coll.Close()
	twin, err := attachLink(hooks[0], nil, coll.Programs[hooks[0].program])
	if err != nil {
		t.Fatal(err)
	}
	defer twin.Close()
	made := p.root.Make(t, "a.slice")
	if s := p.stats(); s.AnchorsMapped != 1 || s.CgroupsFull != 0 {
		t.Errorf("counted %+v", s)
	}
	if d, err := p.Dump(); err != nil || d.Cgroups[made.ID(t)].Group != group {
		t.Errorf("mapped to %+v, %v", d.Cgroups[made.ID(t)], err)
	}
}
