package bpf

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const slotsPerElem = uint32(len(slicelbSlbSlots{}.Backend))

// Options of New and Adopt. The zero value is the default of everything.
type Options struct {
	Slots    uint32 // [daemon] slots; rounded up to 16
	UDPFlows uint32 // entries of each LRU of unconnected UDP; never below what the CPUs need by default

	// Build is what Build was in the process that stored what is adopted; "" =
	// not known. It must have been stored after everything else.
	Build string

	// Capacities other than api.h's, where not 0. Slots above wins over its own.
	Capacities Limits

	Log *slog.Logger // nil = discard

	// Edit changes what New loads: a measurement takes parts of the programs away
	// to see what they cost. nil = nothing.
	Edit func(*ebpf.CollectionSpec)

	events, decisions uint32 // bytes of the rings, for tests
	seen              uint32 // entries of policy_seen, for tests
}

func (o Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// Datapath owns the maps, programs and links. Its methods may be called by
// several goroutines.
type Datapath struct {
	opts Options
	set  string // names this set of objects in a descriptor store

	// use is held for reading by whoever touches maps and memory, for writing by
	// Close. write is held by writers, and for a moment by who reads what they
	// write by more than one load: names, backends, what a dump copies.
	use      sync.RWMutex
	closed   bool
	write    sync.Mutex
	followed map[*followed]bool // dumps on their way

	attach   sync.Mutex // links, programs, wanted and missing
	maps     map[string]*ebpf.Map
	programs map[string]*ebpf.Program
	links    map[string]*heldLink
	wanted   map[string]bool // optional hooks; nil: nobody has said yet
	missing  []Feature
	limits   Limits

	memories        []memory
	frontendRefs    []uint64
	cells           []uint64
	cellAffinity    []uint64
	backendCells    []uint64
	backendTraits   []uint64
	groups          []uint64
	pairKeys        []uint64
	backendCounters []slicelbSlbBackendCounters
	slots           []uint32
	backends        []slicelbSlbBackend
	cellInfos       []slicelbSlbCellInfo
	groupInfos      []slicelbSlbGroupInfo
	policyLines     []policyLine
	policyWord      *uint64
	cgroupRoom      *int64
	hostNetns       *uint64
	frontends       *filter
	backendFilter   *filter
	budgets         []slicelbSlbTellBudget
	watch           watchWords
	latencies       []slicelbSlbLatency
	timeUntil       *uint64

	pairs                   sync.Mutex      // what follows
	freedCells, freedGroups map[uint32]bool // whose pair counters still stand
	children                map[uint32]bool // split children that are counted, by ChildOf
	freedChildren           bool            // some are counted no more, and their counters may stand

	traits map[string]Traits // by VIP
	gone   chan struct{}     // see Gone
	sweep  sweep

	recounts recounts
	barrier  barrier
}

// acquire keeps the datapath open until release.
func (d *Datapath) acquire() error {
	d.use.RLock()
	if d.closed {
		d.use.RUnlock()
		return ErrClosed
	}
	return nil
}

func (d *Datapath) release() { d.use.RUnlock() }

// ErrClosed means that Close came before, or meanwhile.
var ErrClosed = errors.New("datapath is closed")

// New makes empty maps and loads the programs; nothing is attached yet. Loopback
// backends are those of the calling thread's network namespace.
func New(opts Options) (*Datapath, error) {
	spec, err := newSpec()
	if err != nil {
		return nil, err
	}
	if err := size(spec, opts); err != nil {
		return nil, err
	}
	if opts.Edit != nil {
		opts.Edit(spec)
	}
	coll, err := load(spec, nil, opts)
	if err != nil {
		return nil, err
	}
	d := &Datapath{
		opts:     opts,
		set:      newSetName(),
		maps:     coll.Maps,
		programs: coll.Programs,
		links:    make(map[string]*heldLink),
	}
	if err := d.open(spec); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.countCgroups(0, 0)
	return d, nil
}

// open maps the arrays' memory and takes stock of what they hold.
func (d *Datapath) open(spec *ebpf.CollectionSpec) error {
	d.limits = limitsOf(func(name string) uint32 { return d.maps[name].MaxEntries() })
	d.gone = make(chan struct{}, 1)
	d.followed = make(map[*followed]bool)
	d.freedCells, d.freedGroups, d.children = make(map[uint32]bool), make(map[uint32]bool), make(map[uint32]bool)

	if err := d.share(spec); err != nil {
		return err
	}
	// Who watched by the process before is gone.
	atomic.StoreUint64(d.timeUntil, 0)
	atomic.StoreUint64(d.watch.until, 0)
	cookie, err := netnsCookie()
	if err != nil {
		return err
	}
	atomic.StoreUint64(d.hostNetns, cookie)
	d.probe()
	return errors.Join(d.rebuildFilters(), d.readChildren(), d.orphanPairs())
}

// rebuildFilters takes the bitmaps from the entries: what an earlier process
// left between a bit and its entry is put right.
func (d *Datapath) rebuildFilters() error {
	var addrs []netip.Addr
	err := each(d.maps[slicelbMapFrontends], func(k slicelbSlbFrontendKey, _ uint64) {
		addrs = append(addrs, decodeAddr(k.Addr))
	})
	if err != nil {
		return err
	}
	if err := d.frontends.rebuild(slices.Values(addrs)); err != nil {
		return err
	}
	return d.backendFilter.rebuild(func(yield func(netip.Addr) bool) {
		for i := range d.backends {
			if d.backends[i].Generation != 0 && !yield(decodeAddr(d.backends[i].Addr)) {
				return
			}
		}
	})
}

// Limits are the capacities that the maps were made with.
func (d *Datapath) Limits() Limits { return d.limits }

// Close releases everything. What no descriptor store holds ends with it.
func (d *Datapath) Close() error {
	d.use.Lock()
	defer d.use.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true

	var errs []error
	for name, l := range d.links {
		if err := l.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close link %s: %w", name, err))
		}
	}
	for i := range d.memories {
		errs = append(errs, d.memories[i].unmap())
	}
	for _, p := range d.programs {
		errs = append(errs, p.Close())
	}
	for _, m := range d.maps {
		errs = append(errs, m.Close())
	}
	errs = append(errs, d.barrier.close(), d.sweep.end())
	return errors.Join(errs...)
}

// Feature is something that this kernel or this process lacks and that the
// data plane does without.
type Feature struct {
	Name   string // "ipv6", or a hook's name
	Reason string
}

// Missing lists what the data plane does without, and Check does not complain of.
func (d *Datapath) Missing() []Feature {
	d.attach.Lock()
	defer d.attach.Unlock()
	missing := append([]Feature(nil), d.missing...)
	if f := d.sweep.lacks.Load(); f != nil {
		missing = append(missing, *f)
	}
	return missing
}

// probe finds out what can be known before anything is attached. /proc/sys/net
// may be hidden from the daemon, a socket is not.
func (d *Datapath) probe() {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		d.missing = append(d.missing, Feature{Name: "ipv6", Reason: err.Error()})
		return
	}
	unix.Close(fd)
}
