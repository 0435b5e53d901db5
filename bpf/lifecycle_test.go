package bpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/internal/scale"
	"golang.org/x/sys/unix"
)

// theirs is a program of somebody else on connect4: it allows or denies all.
func theirs(t *testing.T, verdict int32) *ebpf.Program {
	t.Helper()
	return theirsOn(t, ebpf.AttachCGroupInet4Connect, verdict)
}

func attachTheirs(t *testing.T, c *kerneltest.Cgroup, p *ebpf.Program, flags uint32) {
	t.Helper()
	hang(t, c, p, ebpf.AttachCGroupInet4Connect, flags)
}

func programsOn(t *testing.T, c *kerneltest.Cgroup) []ebpf.ProgramID {
	t.Helper()
	result, err := link.QueryPrograms(link.QueryOptions{
		Target: int(c.Open(t).Fd()), Attach: ebpf.AttachCGroupInet4Connect,
	})
	if err != nil {
		t.Fatal(err)
	}
	var ids []ebpf.ProgramID
	for _, p := range result.Programs {
		ids = append(ids, p.ID)
	}
	return ids
}

const allowMulti = 1 << 1 // BPF_F_ALLOW_MULTI

// Others' programs on our hooks stay, through start, check and stop. // edge D43, fault F26
func TestKernelOthersStay(t *testing.T) {
	kerneltest.EnterNetns(t)
	root := kerneltest.NewCgroup(t)
	attachTheirs(t, root, theirs(t, 1), allowMulti)
	l, err := link.AttachCgroup(link.CgroupOptions{
		Path: root.Path, Attach: ebpf.AttachCGroupInet4Connect, Program: theirs(t, 1),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	before := programsOn(t, root)

	d, err := New(small)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Attach(root.Open(t)); err != nil {
		t.Fatal(err)
	}
	with := programsOn(t, root)
	if len(with) != len(before)+1 {
		t.Errorf("%v became %v", before, with)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if after := programsOn(t, root); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%v before, %v after", before, after)
	}
}

// A program without BPF_F_ALLOW_MULTI above ours admits no other: the error names
// it and says what to do, and nothing of ours is left attached. // edge D43
func TestKernelExclusiveProgramAbove(t *testing.T) {
	kerneltest.EnterNetns(t)
	root := kerneltest.NewCgroup(t)
	below := root.Make(t, "below")
	p := theirs(t, 1)
	attachTheirs(t, root, p, 0)

	d, err := New(small)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = d.Attach(below.Open(t))
	info, _ := p.Info()
	id, _ := info.ID()
	var feature *FeatureError
	if !errors.As(err, &feature) || !errors.Is(err, unix.EPERM) || !errors.Is(err, ErrNotSupported) ||
		feature.Feature != "attach connect4" ||
		!strings.Contains(feature.Hint, fmt.Sprintf("program %d at %s", id, root.Path)) ||
		!strings.Contains(feature.Hint, "slicelb doctor") {
		t.Errorf("error: %v", err)
	}
	if err := d.Check(); !errors.Is(err, ErrDetached) {
		t.Errorf("check: %v", err)
	}
	for _, h := range hooks {
		if h.tracepoint() {
			continue
		}
		result, err := link.QueryPrograms(link.QueryOptions{Target: int(below.Open(t).Fd()), Attach: h.attach})
		if err != nil || len(result.Programs) != 0 {
			t.Errorf("%s is left with %v, %v", h.name(), result, err)
		}
	}
}

// Not a cgroup2 directory: refused with the reason. // edge D26
func TestKernelNotCgroup2(t *testing.T) {
	p := newPlane(t, small)
	f := (&kerneltest.Cgroup{Path: t.TempDir()}).Open(t)
	if err := p.Attach(f); !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), "not a cgroup2 directory") {
		t.Errorf("error: %v", err)
	}
	if err := p.Check(); err != nil {
		t.Errorf("what was attached is not any more: %v", err)
	}
}

// A program of a child cgroup refuses; ours runs after it, and leaves nothing:
// no count, no state, and the socket's earlier association as it was. // edge D44
func TestKernelDeniedBelow(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	b := kerneltest.Serve(t, "b", "127.0.0.1:0")
	const vip, other = "10.96.0.10:53", "10.96.0.11:53"
	p.vip("a", vip+"/udp").to(a.Addr.String())
	v := p.vip("b", other+"/udp").to(b.Addr.String())
	tcp := p.vip("tcp", vip).to(a.Addr.String())
	child := p.root.Make(t, "child")
	c := kerneltest.Start(t, child)

	s := c.UDP(vip)
	succeeds(t, "connect", s.Connect(vip))
	attachTheirs(t, child, theirs(t, 0), allowMulti)
	failsWith(t, "connect", c.TCP(vip).Connect(vip), unix.EPERM)
	failsWith(t, "connect", s.Connect(other), unix.EPERM)
	peerIs(t, "after a refused connect", s, vip)
	succeeds(t, "send", s.Send("x"))
	answersFrom(t, "after a refused connect", s, "a", vip)
	n := p.counters()
	if n.Cells[v.cell] != (Counters{}) || n.Cells[tcp.cell] != (Counters{}) {
		t.Errorf("a refused connect was counted: %+v", n.Cells)
	}
}

// The cgroup dies, or somebody severs a link: Check says which hooks, and Attach
// puts it right. // edge D42, fault F13
func TestKernelSeveredLinks(t *testing.T) {
	p := newPlane(t, small)
	child := p.root.Make(t, "child")
	if err := p.Attach(child.Open(t)); err != nil { // moves over
		t.Fatal(err)
	}
	if got := len(programsOn(t, p.root)); got != 0 {
		t.Errorf("%d programs are left behind", got)
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	linked := 0 // the tracepoints live on
	for _, l := range p.links {
		if l.cgroup != 0 {
			linked++
		}
	}
	child.Remove(t)
	err := until("the links die", func() bool { return p.Check() != nil })
	if err != nil {
		t.Fatal(err)
	}
	// The cgroup lets go of its programs in a kernel worker, one after the other.
	err = until("all links are seen to be dead", func() bool {
		return strings.Count(p.Check().Error(), "the link is dead") == linked
	})
	if err != nil || !errors.Is(p.Check(), ErrDetached) {
		t.Errorf("%v: %v", err, p.Check())
	}
	if err := p.Attach(p.dir); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(); err != nil {
		t.Errorf("attached anew: %v", err)
	}

	names := p.FDs()
	if err := p.links[slicelbProgSlbConnect4].Link.(interface{ Detach() error }).Detach(); err != nil {
		t.Fatal(err)
	}
	var detached *DetachedError
	if err := p.Check(); !errors.As(err, &detached) || detached.Hook != "connect4" {
		t.Errorf("check: %v", err)
	}
	if err := p.Attach(p.dir); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(); err != nil {
		t.Errorf("attached anew: %v", err)
	}
	changed := 0
	for i, f := range p.FDs() {
		if f.Name != names[i].Name {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("%d names changed for one new link", changed)
	}

	// Somebody's program in our link.
	before := len(programsOn(t, p.root))
	if err := p.links[slicelbProgSlbConnect4].Update(theirs(t, 1)); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(); !errors.As(err, &detached) || !strings.Contains(detached.Reason, "not ours") {
		t.Errorf("check: %v", err)
	}
	if err := p.Attach(p.dir); err != nil {
		t.Fatal(err)
	}
	if err := p.Check(); err != nil {
		t.Errorf("attached anew: %v", err)
	}
	if got := len(programsOn(t, p.root)); got != before {
		t.Errorf("%d programs are attached, %d before", got, before)
	}
}

// stored is what a descriptor store holds of d: duplicates.
func inStore(t *testing.T, d *Datapath) []NamedFD {
	t.Helper()
	var out []NamedFD
	for _, f := range d.FDs() {
		fd, err := unix.FcntlInt(uintptr(f.FD), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, NamedFD{Name: f.Name, FD: fd})
	}
	return out
}

func names(fds []NamedFD) map[string]bool {
	out := make(map[string]bool)
	for _, f := range fds {
		out[f.Name] = true
	}
	return out
}

// anotherBuild has other programs: each does nothing once more.
func anotherBuild(t *testing.T) {
	before := newSpec
	t.Cleanup(func() { newSpec = before })
	newSpec = func() (*ebpf.CollectionSpec, error) {
		spec, err := before()
		if err != nil {
			return nil, err
		}
		for _, p := range spec.Programs {
			// Behind the first, which may carry the symbol and a relocation; r1 is the
			// context, or what the first has made of it.
			nop := asm.Mov.Reg(asm.R1, asm.R1)
			p.Instructions = slices.Insert(p.Instructions, 1, nop)
		}
		return spec, nil
	}
}

// The next process takes over: tables, names, counters and open sockets; with
// the same build nothing is replaced. // edge D40, fault F1
func TestKernelAdopt(t *testing.T) {
	t.Run("compared", func(t *testing.T) { adopt(t, "") })
	t.Run("known to be this build's", func(t *testing.T) { adopt(t, Build()) })
}

func adopt(t *testing.T, build string) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:80"
	p.vip("a", vip).to(a.Addr.String())
	p.vip("a udp", vip+"/udp").to(a.Addr.String())
	p.mapTo(p.root, p.newGroup("web", true), 1)
	p.apply(PutPattern{PatternKey{1, 0}, Pattern{"a", "", Rule{Group: 1}}})
	c := kerneltest.Start(t, p.root)
	tcp, free := c.TCP(vip), c.UDP(vip)
	succeeds(t, "connect", tcp.Connect(vip))
	succeeds(t, "sendto", free.SendTo("x", vip, 0))
	before, err := p.Dump()
	if err != nil {
		t.Fatal(err)
	}

	store := inStore(t, p.Datapath)
	if err := p.Close(); err != nil { // killed
		t.Fatal(err)
	}
	s := c.TCP(vip)
	succeeds(t, "connect while there is no daemon", s.Connect(vip))
	peerIs(t, "while there is no daemon", tcp, vip)
	stored := names(store)

	// Capacities are those of the maps, whatever is asked for.
	others := heldObjects(t) - len(store)
	d, err := Adopt(append(store, NamedFD{Name: "config", FD: -1}), Options{Slots: 1 << 20, Build: build})
	if err != nil {
		t.Fatal(err)
	}
	p.Datapath = d
	if got, want := heldObjects(t)-others, len(d.maps)+len(d.programs)+len(d.links); got != want {
		t.Errorf("%d descriptors are open, %d held", got, want)
	}
	if again := d.maps[slicelbMapScratch] != nil; again != (build == "") {
		t.Errorf("programs were loaded: %v", again)
	}
	if got := names(d.FDs()); fmt.Sprint(got) != fmt.Sprint(stored) {
		t.Errorf("names changed: %v, %v", stored, got)
	}
	if err := d.Check(); err != nil {
		t.Error(err)
	}
	if got := d.Limits().Slots; got != small.Slots {
		t.Errorf("%d slots", got)
	}
	if foretold, err := LimitsFor(small); err != nil || foretold != d.Limits() {
		t.Errorf("foretold %+v, %v; it has %+v", foretold, err, d.Limits())
	}
	after, err := d.Dump()
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("dump changed from\n%v to\n%v", before, after)
	}
	if n := p.counters().Cells[1].Connects; n != 2 {
		t.Errorf("%d connects counted, want 2", n)
	}
	peerIs(t, "after adoption", tcp, vip)
	answersFrom(t, "after adoption", free, "a", vip)

	// And writes on: set_word and the filters are its own now.
	p.mapTo(p.root, p.newGroup("other", true), 0)
	p.vip("more", "10.96.0.11:80").to(a.Addr.String())
	s = c.TCP(vip)
	succeeds(t, "a new VIP", s.Connect("10.96.0.11:80"))
	if err := d.Attach(p.dir); err != nil {
		t.Fatal(err)
	}
	if got := names(d.FDs()); fmt.Sprint(got) != fmt.Sprint(stored) {
		t.Errorf("attaching what is attached changed names: %v, %v", stored, got)
	}
}

// Another build's programs replace those that run, in place, while connections
// are made: none fails, none is left untranslated. // edge D41, fault F3
func TestKernelUpgradeUnderLoad(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:80"
	p.vip("a", vip).to(a.Addr.String())
	p.vip("a udp", vip+"/udp").to(a.Addr.String())
	const node = 1
	p.mapTo(p.root, 0, node)
	p.apply(PutPattern{PatternKey{node, 0}, Pattern{"", ".slice", Rule{Group: p.newGroup("web", true)}}})

	n := scale.Count(100_000)
	var clients sync.WaitGroup
	results := make([]kerneltest.LoadResult, 2)
	for i := range results {
		c := kerneltest.Start(t, p.root)
		clients.Go(func() { results[i], _ = c.Run(kerneltest.Load{To: vip, Count: n, UDP: i == 1}) })
	}
	done := make(chan struct{})
	go func() {
		clients.Wait()
		close(done)
	}()
	builds := 0
	own := newSpec
	for running := true; running; builds++ {
		select {
		case <-done:
			running = false
		default:
		}
		before := names(p.FDs())
		store := inStore(t, p.Datapath)
		if builds%2 == 0 {
			anotherBuild(t)
		} else {
			newSpec = own
		}
		d, err := Adopt(store, small)
		if err != nil {
			t.Fatal(err)
		}
		old := p.Datapath
		p.Datapath = d
		if err := old.Close(); err != nil {
			t.Error(err)
		}
		if err := d.Check(); err != nil {
			t.Error(err)
		}
		replaced := 0
		for name := range names(d.FDs()) {
			if !before[name] {
				replaced++
			}
		}
		// All programs, and the links of the two tracepoints.
		if replaced != len(d.programs)+2 {
			t.Errorf("%d names are new", replaced)
		}
		g := p.root.Make(t, fmt.Sprintf("%d.slice", builds))
		dump, err := d.Dump()
		if err != nil {
			t.Fatal(err)
		}
		if dump.Cgroups[g.ID(t)].Group != 1 {
			t.Error("an anchor was not mapped after the upgrade")
		}
	}
	t.Logf("%d upgrades during %d connections", builds, 2*n)
	for _, result := range results {
		if len(result.Connections) != n {
			t.Errorf("%d of %d connections", len(result.Connections), n)
		}
		failed := 0
		for _, r := range result.Connections {
			if r.Errno != 0 || r.Server != "a" || r.Peer.String() != vip {
				if failed++; failed == 1 {
					t.Errorf("%+v; hooks: %v", r, p.Check())
				}
			}
		}
		if failed > 0 {
			t.Errorf("%d of %d failed", failed, n)
		}
	}
}

// The programs of this build do not load: the adopted ones go on, and are written.
func TestKernelAdoptWithoutNewPrograms(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:80"
	p.vip("a", vip).to(a.Addr.String())
	p.mapTo(p.root, 0, 1)
	store := inStore(t, p.Datapath)
	own := newSpec
	t.Cleanup(func() { newSpec = own })
	newSpec = func() (*ebpf.CollectionSpec, error) {
		spec, err := own()
		if err == nil {
			spec.Programs[slicelbProgSlbConnect6].Instructions = asm.Instructions{asm.Return()}
		}
		return spec, err
	}
	d, err := Adopt(store, small)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := d.Check(); err != nil {
		t.Error(err)
	}
	if err := d.Apply(SetCgroup{p.root.ID(t), Rule{Node: 2}}); err != nil {
		t.Error(err)
	}
	s := kerneltest.Start(t, p.root).TCP(vip)
	succeeds(t, "connect", s.Connect(vip))
	peerIs(t, "the old programs", s, vip)

	// Without the old ones there is nothing to go on with.
	store = inStore(t, p.Datapath)
	var less []NamedFD
	for _, f := range store {
		if strings.Contains(f.Name, "-prog-slb_recvmsg4") {
			unix.Close(f.FD)
			continue
		}
		less = append(less, f)
	}
	if _, err := Adopt(less, small); !errors.Is(err, ErrForeign) {
		t.Errorf("error: %v", err)
	}
}

// ofLayout9 is a set of a version to come.
func ofLayout9(fds []NamedFD) []NamedFD {
	for i := range fds {
		fds[i].Name = "slb9" + strings.TrimPrefix(fds[i].Name, "slb1")
	}
	return fds
}

// What a store may hold besides a whole set. // fault F4
func TestKernelAdoptRefuses(t *testing.T) {
	p := newPlane(t, small)
	other, err := New(Options{Slots: 1024, UDPFlows: 4096, Capacities: Limits{Cgroups: 77}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()

	if _, err := Adopt(nil, small); !errors.Is(err, ErrNothingStored) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := Adopt([]NamedFD{{Name: "stored", FD: -1}}, small); !errors.Is(err, ErrNothingStored) {
		t.Errorf("somebody else's: %v", err)
	}

	// replace puts the descriptor called from under the name of to.
	replace := func(fds []NamedFD, to, from string) []NamedFD {
		for i := range fds {
			for j := range fds {
				if strings.Contains(fds[i].Name, to) && strings.Contains(fds[j].Name, from) {
					if err := unix.Dup3(fds[j].FD, fds[i].FD, unix.O_CLOEXEC); err != nil {
						t.Fatal(err)
					}
					return fds
				}
			}
		}
		t.Fatalf("no %s or %s", to, from)
		return nil
	}
	tests := []struct {
		name    string
		tamper  func([]NamedFD) []NamedFD
		object  string
		message string
	}{
		{"a map is missing", func(fds []NamedFD) []NamedFD {
			unix.Close(fds[0].FD)
			return fds[1:]
		}, "map .bss", "is missing"},
		{"another layout", ofLayout9, "", "layout slb9; this program knows slb1"},
		{"another layout, attached to nothing", func(fds []NamedFD) []NamedFD {
			return slices.DeleteFunc(ofLayout9(fds), func(f NamedFD) bool {
				if strings.Contains(f.Name, "-link-") {
					unix.Close(f.FD)
					return true
				}
				return false
			})
		}, "", "layout slb9"},
		{"a program for a map", func(fds []NamedFD) []NamedFD {
			return replace(fds, "-map-cells", "-prog-slb_connect4-")
		}, "map cells", "is foreign"},
		{"a map for a program", func(fds []NamedFD) []NamedFD {
			return replace(fds, "-prog-slb_connect4-", "-map-cells")
		}, "prog slb_connect4", "is foreign"},
		{"a map for a link", func(fds []NamedFD) []NamedFD {
			return replace(fds, "-link-slb_connect4-", "-map-cells")
		}, "link slb_connect4", "is foreign"},
		{"another map of the same shape", func(fds []NamedFD) []NamedFD {
			return replace(fds, "-map-udp_choice", "-map-udp_reverse")
		}, "map udp_choice", `is foreign: its name is "udp_reverse"`},
		{"a table of another shape", func(fds []NamedFD) []NamedFD {
			m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "views", Type: ebpf.Hash, KeySize: 8, ValueSize: 24, MaxEntries: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			i := slices.IndexFunc(fds, func(f NamedFD) bool { return strings.HasSuffix(f.Name, "-map-views") })
			if err := unix.Dup3(m.FD(), fds[i].FD, unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			return fds
		}, "map views", "does not fit"},
		{"another kind of program", func(fds []NamedFD) []NamedFD {
			return replace(fds, "-prog-slb_connect4-", "-prog-slb_cgroup_mkdir-")
		}, "prog slb_connect4", "is foreign"},
		{"another hook's link", func(fds []NamedFD) []NamedFD {
			return replace(fds, "-link-slb_connect4-", "-link-slb_connect6-")
		}, "link slb_connect4", "is foreign: linked to another hook"},
		{"no descriptor", func(fds []NamedFD) []NamedFD {
			i := slices.IndexFunc(fds, func(f NamedFD) bool { return strings.HasSuffix(f.Name, "-map-backends") })
			unix.Close(fds[i].FD)
			return fds
		}, "map backends", "is foreign"},
	}
	for _, tt := range tests {
		before := openDescriptors(t)
		store := tt.tamper(inStore(t, p.Datapath))
		_, err := Adopt(store, small)
		var adopt *AdoptError
		if !errors.As(err, &adopt) || !errors.Is(err, ErrForeign) || adopt.Object != tt.object ||
			!strings.Contains(err.Error(), tt.message) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if layout := tt.name == "another layout" || tt.name == "a table of another shape"; errors.Is(err, ErrLayout) != layout {
			t.Errorf("%s: is it the layout: %v", tt.name, !layout)
		}
		if after := openDescriptors(t); after != before {
			t.Errorf("%s: %d descriptors open, %d before", tt.name, after, before)
		}
		if err := p.Check(); err != nil {
			t.Errorf("%s: what runs was disturbed: %v", tt.name, err)
		}
	}

	// Two sets: the newest that is complete; the rest is closed.
	before := openDescriptors(t)
	both := append(inStore(t, p.Datapath), inStore(t, other)...)
	d, err := Adopt(both, small)
	if err != nil {
		t.Fatal(err)
	}
	if got := d.Limits().Cgroups; got != 77 {
		t.Errorf("the older set was taken: %d cgroups", got)
	}
	d.Close()
	partial := inStore(t, other)
	lost := slices.IndexFunc(partial, func(f NamedFD) bool { return strings.HasSuffix(f.Name, "-map-cells") })
	unix.Close(partial[lost].FD)
	both = append(inStore(t, p.Datapath), slices.Delete(partial, lost, lost+1)...)
	if d, err = Adopt(both, small); err != nil {
		t.Fatal(err)
	}
	if got := d.Limits().Cgroups; got != small.Capacities.Cgroups {
		t.Errorf("the partial set was taken: %d cgroups", got)
	}
	d.Close()
	// The same twice, as after a store that was interrupted.
	if d, err = Adopt(append(inStore(t, p.Datapath), inStore(t, p.Datapath)...), small); err != nil {
		t.Fatal(err)
	}
	d.Close()
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors open, %d before", after, before)
	}
	if err := p.Check(); err != nil {
		t.Error(err)
	}
}

// An earlier process died between a bit of a filter and its entry.
func TestKernelAdoptRepairsFilters(t *testing.T) {
	p := newPlane(t, small)
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	const vip = "10.96.0.10:80"
	p.vip("a", vip).to(a.Addr.String())
	gone, err := encodeAddr(frontendKey("10.96.9.9:80").Addr.Addr())
	if err != nil {
		t.Fatal(err)
	}
	p.frontends.add(gone) // and never inserted
	bit := p.frontends.bit(gone)
	d, err := Adopt(inStore(t, p.Datapath), small)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.frontends.words[bit>>6]>>(bit&63)&1 != 0 {
		t.Error("a bit without an entry stays")
	}
	s := kerneltest.Start(t, p.root).TCP(vip)
	succeeds(t, "connect", s.Connect(vip))
	peerIs(t, "what has an entry", s, vip)
}

// After Close every call says so, and none touches memory that is gone.
func TestKernelClosed(t *testing.T) {
	p := newPlane(t, small)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	_, dumpErr := p.Dump()
	_, countErr := p.Counters()
	_, statErr := p.Stats()
	_, eventErr := p.Events()
	for _, err := range []error{
		dumpErr, countErr, statErr, eventErr,
		p.Apply(SetCell{1, Cell{}}), p.Check(), p.Attach(p.dir),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("error %v", err)
		}
	}
	if p.FDs() != nil {
		t.Error("descriptors of a closed datapath")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// A hook for IPv6 that cannot be had at the moment is an error, to be tried again;
// it is not taken for one that the kernel lacks.
func TestKernelAttachFailsForIPv6(t *testing.T) {
	p := newPlane(t, small)
	before := attachLink
	t.Cleanup(func() { attachLink = before })
	attachLink = func(h hook, dir *os.File, prog *ebpf.Program) (link.Link, error) {
		if h.program == slicelbProgSlbConnect6 {
			return nil, unix.E2BIG
		}
		return before(h, dir, prog)
	}
	elsewhere := kerneltest.NewCgroup(t).Open(t)
	if err := p.Attach(elsewhere); !errors.Is(err, unix.E2BIG) || errors.Is(err, ErrNotSupported) {
		t.Errorf("attach: %v", err)
	}
	if missing := p.Missing(); len(missing) > 0 {
		t.Errorf("missing: %v", missing)
	}
	if err := p.Check(); err != nil {
		t.Errorf("the hooks are not as before: %v", err)
	}
	attachLink = before
	if err := p.Attach(elsewhere); err != nil {
		t.Errorf("attach again: %v", err)
	}
}
