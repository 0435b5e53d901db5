package bpf

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

func TestMain(m *testing.M) {
	if cgroup := os.Getenv(levelEnv); cgroup != "" {
		os.Exit(printLevel(cgroup))
	}
	kerneltest.Main(m)
}

// plane is a Datapath attached to a cgroup of its own, in a network namespace of
// its own that the test's goroutine is in, and a simple writer of its tables:
// indexes only grow.
type plane struct {
	t testing.TB
	*Datapath
	root *kerneltest.Cgroup
	dir  *os.File
	ns   *kerneltest.Netns

	frontend, cell, backend, slot, group uint32
}

// small is enough for most tests, and quick to make.
var small = Options{
	Slots: 1 << 16,
	Capacities: Limits{
		Frontends: 1024, Cells: 1024, Views: 1024, Backends: 4096,
		Groups: 1024, Cgroups: 4096, Expect: 1024,
	},
	UDPFlows: 1 << 16,
}

func newPlane(t testing.TB, opts Options) *plane {
	t.Helper()
	ns := kerneltest.EnterNetns(t)
	p := &plane{t: t, ns: ns, root: kerneltest.NewCgroup(t)}
	p.dir = p.root.Open(t)
	d, err := New(opts)
	if err != nil {
		t.Fatalf("new: %+v", err)
	}
	p.Datapath = d
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := p.Attach(p.dir); err != nil {
		t.Fatalf("attach: %v", err)
	}
	return p
}

func (p *plane) apply(writes ...Write) {
	p.t.Helper()
	for _, w := range writes {
		if err := p.Apply(w); err != nil {
			p.t.Fatal(err)
		}
	}
}

// service is one family of a VIP in the tables.
type service struct {
	p         *plane
	name      string
	cell      uint32
	gen       uint16
	now       Cell
	frontends map[FrontendKey]uint32
	backends  map[netip.AddrPort]uint32
}

// vip makes a VIP with frontends like "10.96.0.10:80" or "10.96.0.10:53/udp".
func (p *plane) vip(name string, frontends ...string) *service {
	p.t.Helper()
	p.cell++
	v := &service{
		p: p, name: name, cell: p.cell,
		frontends: make(map[FrontendKey]uint32),
		backends:  make(map[netip.AddrPort]uint32),
	}
	for i, f := range frontends {
		key := frontendKey(f)
		if i == 0 {
			family := uint8(4)
			if key.Addr.Addr().Is6() {
				family = 6
			}
			p.apply(SetCellInfo{v.cell, CellInfo{VIP: name, Family: family}})
			v.set(Cell{Action: RejectDown})
		}
		p.frontend++
		v.frontends[key] = p.frontend
		p.apply(
			SetFrontendRef{p.frontend, FrontendRef{Cell: v.cell, Gen: 1, Rest: key.Addr.Port() == 0}},
			PutFrontend{key, p.frontend},
		)
	}
	return v
}

func frontendKey(s string) FrontendKey {
	addr, proto, _ := strings.Cut(s, "/")
	k := FrontendKey{Addr: netip.MustParseAddrPort(addr), Proto: TCP}
	if proto == "udp" {
		k.Proto = UDP
	}
	return k
}

// set flips the VIP's cell.
func (v *service) set(c Cell) {
	v.p.t.Helper()
	v.gen = (v.gen + 1) & CellGenMask
	c.Gen = v.gen
	v.now = c
	v.p.apply(SetCell{v.cell, c})
}

// to makes the VIP balance over addresses; one that stands n times has weight n.
// Backends that are new are made, those that are gone stay as they are.
func (v *service) to(addresses ...string) *service {
	v.p.t.Helper()
	base, count := v.slots(addresses...)
	v.set(Cell{Base: base, Count: count, Action: Balance, Selective: v.now.Selective})
	return v
}

func (v *service) slots(addresses ...string) (base, count uint32) {
	v.p.t.Helper()
	var slots []uint32
	for _, a := range addresses {
		slots = append(slots, v.index(netip.MustParseAddrPort(a)))
	}
	base = v.p.slot
	v.p.slot += uint32(len(slots))
	v.p.apply(SetSlots{base, slots})
	return base, uint32(len(slots))
}

// index is the backend's, made where it is new.
func (v *service) index(a netip.AddrPort) uint32 {
	v.p.t.Helper()
	i, ok := v.backends[a]
	if !ok {
		v.p.backend++
		i = v.p.backend
		v.backends[a] = i
		v.p.apply(SetBackend{i, Backend{Addr: a, Gen: 1, Cell: v.cell}})
	}
	v.p.apply(SetBackendCell{i, BackendCell{State: BackendActive, Gen: 1}})
	return i
}

// state sets a backend's.
func (v *service) state(address string, s BackendState) {
	v.p.t.Helper()
	i := v.backends[netip.MustParseAddrPort(address)]
	v.p.apply(SetBackendCell{i, BackendCell{State: s, Gen: 1}})
}

// remove takes the VIP out, in the order of a removal.
func (v *service) remove() {
	v.p.t.Helper()
	for key, i := range v.frontends {
		v.p.apply(DelFrontend{key}, SetFrontendRef{i, FrontendRef{Gen: 1}})
	}
	v.set(Cell{})
}

// view gives a group a cell of its own and returns its index.
func (v *service) view(group uint32, c Cell) uint32 {
	v.p.t.Helper()
	v.p.cell++
	i := v.p.cell
	v.p.apply(SetCell{i, c}, PutView{ViewKey{v.cell, group}, i})
	now := v.now
	now.Selective = true
	v.set(now)
	return i
}

// newGroup names a group.
func (p *plane) newGroup(name string, translate bool) uint32 {
	p.t.Helper()
	p.group++
	p.apply(SetGroup{p.group, Group{Name: name, Translate: translate}})
	return p.group
}

// mapTo puts a cgroup into a group; node says what is expected below.
func (p *plane) mapTo(c *kerneltest.Cgroup, group, node uint32) {
	p.t.Helper()
	id := c.ID(p.t)
	err := p.Apply(PutCgroup{id, Rule{Group: group, Node: node}})
	if errors.Is(err, ErrExist) {
		err = p.Apply(SetCgroup{id, Rule{Group: group, Node: node}})
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *plane) stats() Stats {
	p.t.Helper()
	s, err := p.Stats()
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *plane) counters() *CounterSnapshot {
	p.t.Helper()
	c, err := p.Counters()
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}
