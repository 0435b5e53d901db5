package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Swept is what came of one Sweep. Sockets are counted that are connected to a
// backend that is gone or down, or to a VIP that policy denies to the group that
// connected them, and whose VIP wants them closed.
type Swept struct {
	Closed int
	Left   int // in the daemon's network namespace: their closing failed
	Stuck  int // in other network namespaces
	// Err is why some are left or stuck; it may be nil, where they came meanwhile.
	Err error
}

// Gone delivers a value when backends that have sockets worth closing have gone,
// or are down, and no call is on its way to them any more; or when there is another
// policy.
func (d *Datapath) Gone() <-chan struct{} { return d.gone }

// Sweep closes sockets that are connected to backends that are gone: those that
// connect chose it for, that are still connected to it, and whose VIP wants it; and
// such whose call for the VIP policy would deny now to the group that made it.
// It looks at every socket that a VIP sent, in every network namespace; where it
// finds such, at every socket of their namespace. Other namespaces than the
// caller's, which must be the daemon's, need CAP_SYS_ADMIN and CAP_SYS_PTRACE.
//
// Programs of the right kind are loaded at the first call. One Sweep runs at a
// time; nothing else waits for it.
func (d *Datapath) Sweep() (Swept, error) {
	if err := d.acquire(); err != nil {
		return Swept{}, err
	}
	defer d.release()
	d.sweep.Lock()
	defer d.sweep.Unlock()
	if err := d.sweep.load(d); err != nil {
		return Swept{}, fmt.Errorf("sweep: %w", err)
	}
	denies := d.sweep.denies(d)
	before, err := d.sweep.doomed(d, denies)
	if err != nil || len(before) == 0 {
		return Swept{}, err
	}
	home := atomic.LoadUint64(d.hostNetns)
	byNetns := map[uint64][]doomedSocket{}
	for _, s := range before {
		byNetns[s.netns] = append(byNetns[s.netns], s)
	}
	var errs []error
	if own := byNetns[home]; own != nil {
		errs = append(errs, d.sweep.close(own))
		delete(byNetns, home)
	}
	if len(byNetns) > 0 {
		errs = append(errs, d.sweep.closeAbroad(byNetns))
	}
	if len(deniedOf(before)) == 0 {
		denies = nil // there is nothing to ask it again
	}
	after, err := d.sweep.doomed(d, denies)
	if err != nil {
		return Swept{}, err
	}
	out := Swept{}
	left := make(map[uint64]bool, len(after))
	for _, s := range after {
		left[s.cookie] = true
		if s.netns == home {
			out.Left++
		} else {
			out.Stuck++
		}
	}
	for _, s := range before {
		if !left[s.cookie] {
			out.Closed++
		}
	}
	if len(after) > 0 {
		out.Err = errors.Join(errs...)
	}
	return out, nil
}

// doomedSocket is one that is to be closed.
type doomedSocket struct {
	netns, cookie uint64
	local, remote netip.AddrPort
	family, proto uint8
	device        uint32
	denied        bool // its backend has not gone
}

// sweep holds the iterators.
type sweep struct {
	sync.Mutex
	list     *ebpf.Program
	sent     *ebpf.Program
	tcp, udp *ebpf.Program           // nil: the kernel has no bpf_sock_destroy
	lacks    atomic.Pointer[Feature] // anyone may load it

	word   uint64       // that puts policy in force
	policy *PolicyIndex // nil: there is none
}

// sockDestroy is the name of a Feature.
const sockDestroy = "bpf_sock_destroy"

// loadSweepSpec is what tests replace to be a kernel without bpf_sock_destroy.
var loadSweepSpec = loadSweep

func (s *sweep) load(d *Datapath) error {
	if s.list != nil {
		return nil
	}
	spec, err := loadSweepSpec()
	if err != nil {
		return err
	}
	given := make(map[string]*ebpf.Map, len(spec.Maps))
	for name, m := range spec.Maps {
		if have := d.maps[name]; have != nil && stored(name) && !strings.HasPrefix(name, ".") {
			given[name], m.MaxEntries = have, have.MaxEntries()
		}
	}
	options := ebpf.CollectionOptions{MapReplacements: given}
	coll, err := ebpf.NewCollectionWithOptions(spec, options)
	if errors.Is(err, btf.ErrNotFound) || errors.Is(err, ebpf.ErrNotSupported) {
		delete(spec.Programs, sweepProgSlbCloseTcp)
		delete(spec.Programs, sweepProgSlbCloseUdp)
		coll, err = ebpf.NewCollectionWithOptions(spec, options)
	}
	if err != nil {
		return err
	}
	defer coll.Close()
	s.list = coll.DetachProgram(sweepProgSlbDoomed)
	s.sent = coll.DetachProgram(sweepProgSlbSent)
	s.tcp = coll.DetachProgram(sweepProgSlbCloseTcp)
	s.udp = coll.DetachProgram(sweepProgSlbCloseUdp)
	if s.tcp == nil {
		s.lacks.Store(&Feature{Name: sockDestroy, Reason: "sockets are closed through sock_diag, one by one"})
	}
	return nil
}

func (s *sweep) end() error {
	var errs []error
	for _, p := range []*ebpf.Program{s.list, s.sent, s.tcp, s.udp} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	return errors.Join(errs...)
}

// doomed lists the sockets that are to be closed, in every network namespace; denies
// says of which policy wants it, and is nil where it is not to be asked.
func (s *sweep) doomed(d *Datapath, denies func(*sweepSlbDoomedSocket) bool) ([]doomedSocket, error) {
	origins := d.maps[slicelbMapOrigins]
	var out []doomedSocket
	err := iterate(s.list, origins, func(r *sweepSlbDoomedSocket) { out = append(out, decodeDoomed(r)) })
	if err != nil || denies == nil {
		return out, err
	}
	have := make(map[uint64]bool, len(out))
	for _, socket := range out {
		have[socket.cookie] = true
	}
	err = iterate(s.sent, origins, func(r *sweepSlbDoomedSocket) {
		if socket := decodeDoomed(r); !have[socket.cookie] && denies(r) {
			socket.denied = true
			out = append(out, socket)
		}
	})
	return out, err
}

func decodeDoomed(r *sweepSlbDoomedSocket) doomedSocket {
	return doomedSocket{
		netns: r.Netns, cookie: r.Cookie, family: r.Family, proto: r.Proto, device: r.Device,
		local:  addrPort(r.Local.WordBe, r.LocalPortBe),
		remote: addrPort(r.Remote.WordBe, r.RemotePortBe),
	}
}

func addrPort(words [4]uint32, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(decodeAddr(slicelbSlbAddr{WordBe: words}), swapPort(port))
}

// denies says whether the policy in force denies the call that connected a socket;
// nil: it denies nothing. What a group is called, and not its index, says that it is
// still the one that called.
func (s *sweep) denies(d *Datapath) func(*sweepSlbDoomedSocket) bool {
	if word := atomic.LoadUint64(d.policyWord); word != s.word {
		s.word, s.policy = d.policyInForce()
	}
	if s.policy == nil {
		return nil
	}
	return func(r *sweepSlbDoomedSocket) bool {
		if int(r.Group) >= len(d.groups) || uint32(atomic.LoadUint64(&d.groups[r.Group])>>groupHashShift) != r.GroupCheck {
			return false
		}
		frontend := false
		if int(r.Frontend) < len(d.frontendRefs) {
			ref := decodeFrontendRef(atomic.LoadUint64(&d.frontendRefs[r.Frontend]))
			frontend = ref.Cell != 0 && ref.Gen == r.FrontendGen
		}
		action, _ := s.policy.Decide(r.Group, addrPort(r.Vip.WordBe, r.VipPortBe), r.Proto, frontend)
		return action == PolicyDeny
	}
}

// close closes sockets of the calling thread's network namespace.
func (s *sweep) close(list []doomedSocket) error {
	if s.tcp == nil || s.udp == nil {
		return diagDestroy(list)
	}
	var errs []error
	if denied := deniedOf(list); len(denied) > 0 { // of which the iterators know nothing
		errs = append(errs, diagDestroy(denied))
	}
	for proto, p := range map[uint8]*ebpf.Program{unix.IPPROTO_TCP: s.tcp, unix.IPPROTO_UDP: s.udp} {
		for _, socket := range list {
			if socket.proto == proto && !socket.denied {
				errs = append(errs, iterate(p, nil, func(*sweepSlbDoomedSocket) {})) // it writes nothing
				break
			}
		}
	}
	return errors.Join(errs...)
}

func deniedOf(list []doomedSocket) []doomedSocket {
	return slices.DeleteFunc(slices.Clone(list), func(s doomedSocket) bool { return !s.denied })
}
