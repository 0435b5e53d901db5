package bpf

import (
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// Counters are what calls to a VIP came to, since its cell was made.
type Counters struct {
	Connects uint64 // connect() calls that were translated
	Flows    uint64 // choices made for unconnected UDP
	Passed   uint64 // left untouched by except, clients, translate or when_down
	Rejected uint64 // EHOSTUNREACH
	Denied   uint64 // EPERM, by policy
}

// BackendCounters are what a backend was chosen for, since its index was given out.
type BackendCounters struct {
	Connects, Flows uint64
}

// NetworksCell stands in Pairs for what no VIP has: calls to the networks that
// policy names.
const NetworksCell = 1<<32 - 1

// CounterSnapshot is summed over the CPUs. Cells hold all groups' calls; what a
// cell has more than its pairs came when the table of pairs was full.
type CounterSnapshot struct {
	Cells    map[uint32]Counters  // by default cell
	Pairs    map[ViewKey]Counters // by default cell and group
	Children map[ViewKey]Counters // by default cell, and ChildOf as Group; their groups' Pairs have them, too
	Backends map[uint32]BackendCounters
	Places   Places
	Live     map[uint32]uint64 // by backend: see Datapath.Live
}

// Pairs is how many places the table of pairs has (SLB_PAIRS).
const Pairs = 16384

// Places are those of the table of pairs.
type Places struct{ Used, Limit uint32 }

// Stats count what should be rare, over all CPUs, since the maps were made.
type Stats struct {
	StorageFailed uint64 // no room for what a socket remembers: the peer's name is lost, or a sender's
	LoopbackNetns uint64 // a loopback backend was asked for from another network namespace
	ReplyUnknown  uint64 // datagrams from a backend that the socket asked by no VIP's name, or no more
	StaleFrontend uint64 // a peer's name was declined: the frontend is gone
	PairsFull     uint64 // counted by the cell, but not by the group, or not by the split child
	CgroupsFull   uint64 // an anchor that the kernel could not map
	EventsLost    uint64 // hints that found the ring buffer full
	AnchorsMapped uint64 // directories mapped before mkdir returned
	FailuresLost  uint64 // failed connects that were not reported: see Failures
	DecisionsLost uint64 // decisions to be told that found the ring buffer full
	PolicyBroken  uint64 // calls for which the policy could not be read: the group's default decided
	SeenFull      uint64 // audited calls that found no room among Seen
	StrictRefused uint64 // sockets refused to groups with strict = true
}

// Counters reads the counters of everything that has a name.
func (d *Datapath) Counters() (*CounterSnapshot, error) {
	if err := d.acquire(); err != nil {
		return nil, err
	}
	defer d.release()
	if err := d.prunePairs(); err != nil {
		return nil, err
	}
	out := &CounterSnapshot{
		Cells:    make(map[uint32]Counters),
		Pairs:    make(map[ViewKey]Counters),
		Children: make(map[ViewKey]Counters),
		Backends: make(map[uint32]BackendCounters),
		Places:   Places{Limit: uint32(len(d.pairKeys))},
		Live:     d.liveCounts(),
	}
	d.write.Lock()
	cells, backends := d.defaultCells(), d.knownBackends()
	d.write.Unlock()
	for _, i := range cells {
		var perCPU []slicelbSlbCounters
		if err := d.maps[slicelbMapCellCounters].Lookup(i, &perCPU); err != nil {
			return nil, fmt.Errorf("read counters of cell %d: %w", i, err)
		}
		out.Cells[i] = sum(perCPU)
	}
	for _, i := range backends {
		out.Backends[i] = d.backendCounters[i].read()
	}
	for i := range d.pairKeys {
		pair := atomic.LoadUint64(&d.pairKeys[i])
		if pair == 0 {
			continue
		}
		var perCPU []slicelbSlbCounters
		if err := d.maps[slicelbMapPairCounters].Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read counters of a group: %w", err)
		}
		out.Places.Used++
		key := decodePair(pair)
		into := out.Pairs
		if key.Group&pairChild != 0 {
			into = out.Children
		}
		into[key] = into[key].plus(sum(perCPU))
	}
	return out, nil
}

func (c *slicelbSlbBackendCounters) read() BackendCounters {
	return BackendCounters{Connects: atomic.LoadUint64(&c.Connects), Flows: atomic.LoadUint64(&c.Flows)}
}

// clear ends what a backend's index counted. The index has been FREE for a grace
// period: no program adds to it any more.
func (c *slicelbSlbBackendCounters) clear() {
	atomic.StoreInt64(&c.Live, 0)
	atomic.StoreUint64(&c.Connects, 0)
	atomic.StoreUint64(&c.Flows, 0)
}

// decodePair reads a word of pair_keys (SLB_PAIR).
func decodePair(w uint64) ViewKey { return ViewKey{Cell: uint32(w >> 32), Group: uint32(w)} }

func (c Counters) plus(o Counters) Counters {
	return Counters{c.Connects + o.Connects, c.Flows + o.Flows, c.Passed + o.Passed, c.Rejected + o.Rejected, c.Denied + o.Denied}
}

func sum(perCPU []slicelbSlbCounters) Counters {
	var n Counters
	for _, c := range perCPU {
		n.Connects += c.Connects
		n.Flows += c.Flows
		n.Passed += c.Passed
		n.Rejected += c.Rejected
		n.Denied += c.Denied
	}
	return n
}

// Stats reads the programs' own statistics.
func (d *Datapath) Stats() (Stats, error) {
	if err := d.acquire(); err != nil {
		return Stats{}, err
	}
	defer d.release()
	var out Stats
	for stat, field := range map[slicelbSlbStat]*uint64{
		slicelbSlbStatSLB_STAT_STORAGE_FAILED: &out.StorageFailed,
		slicelbSlbStatSLB_STAT_LOOPBACK_NETNS: &out.LoopbackNetns,
		slicelbSlbStatSLB_STAT_REPLY_UNKNOWN:  &out.ReplyUnknown,
		slicelbSlbStatSLB_STAT_STALE_FRONTEND: &out.StaleFrontend,
		slicelbSlbStatSLB_STAT_PAIRS_FULL:     &out.PairsFull,
		slicelbSlbStatSLB_STAT_CGROUPS_FULL:   &out.CgroupsFull,
		slicelbSlbStatSLB_STAT_EVENTS_LOST:    &out.EventsLost,
		slicelbSlbStatSLB_STAT_ANCHORS_MAPPED: &out.AnchorsMapped,
		slicelbSlbStatSLB_STAT_FAILURES_LOST:  &out.FailuresLost,
		slicelbSlbStatSLB_STAT_DECISIONS_LOST: &out.DecisionsLost,
		slicelbSlbStatSLB_STAT_POLICY_BROKEN:  &out.PolicyBroken,
		slicelbSlbStatSLB_STAT_SEEN_FULL:      &out.SeenFull,
		slicelbSlbStatSLB_STAT_STRICT_REFUSED: &out.StrictRefused,
	} {
		var perCPU []uint64
		if err := d.maps[slicelbMapStats].Lookup(uint32(stat), &perCPU); err != nil {
			return Stats{}, fmt.Errorf("read statistics: %w", err)
		}
		for _, n := range perCPU {
			*field += n
		}
	}
	return out, nil
}

// zero ends what an index counted, on every CPU, for its former owner.
func zero[T any](d *Datapath, table string, index uint32) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	if err := d.maps[table].Put(index, make([]T, cpus)); err != nil {
		return fmt.Errorf("clear %s: %w", table, err)
	}
	return nil
}

// free remembers that the pairs of a cell or group count for nobody any more;
// reuse clears them before the index counts for another.
func (d *Datapath) free(freed map[uint32]bool, index uint32) {
	d.pairs.Lock()
	defer d.pairs.Unlock()
	freed[index] = true
}

func (d *Datapath) reuse(freed map[uint32]bool, index uint32) error {
	d.pairs.Lock()
	again := freed[index]
	d.pairs.Unlock()
	if !again {
		return nil
	}
	return d.prunePairs()
}

// prunePairs clears the pairs of freed cells and groups. It walks the whole
// table, so it waits until an index is given out again or somebody reads.
func (d *Datapath) prunePairs() error {
	d.pairs.Lock()
	defer d.pairs.Unlock()
	if len(d.freedCells) == 0 && len(d.freedGroups) == 0 && !d.freedChildren {
		return nil
	}
	err := d.clearPairs(func(k ViewKey) bool {
		return d.freedCells[k.Cell] || d.freedGroups[k.Group] || d.childGone(k)
	})
	if err != nil {
		return err
	}
	clear(d.freedCells)
	clear(d.freedGroups)
	d.freedChildren = false
	return nil
}

// orphanPairs clears what an earlier process left behind: pairs of which the
// cell or the group has no name.
func (d *Datapath) orphanPairs() error {
	return d.clearPairs(func(k ViewKey) bool {
		if k.Cell != NetworksCell && (k.Cell >= uint32(len(d.cellInfos)) || d.cellInfos[k.Cell].Family == 0) {
			return true
		}
		if k.Group&pairChild != 0 {
			return d.childGone(k)
		}
		return k.Group >= uint32(len(d.groupInfos)) || k.Group != 0 && d.groupInfos[k.Group].Name[0] == 0
	})
}

// clearPairs empties the counters before it gives the index up: who claims it
// starts at zero.
func (d *Datapath) clearPairs(void func(ViewKey) bool) error {
	for i := range d.pairKeys {
		pair := atomic.LoadUint64(&d.pairKeys[i])
		if pair == 0 || !void(decodePair(pair)) {
			continue
		}
		if err := zero[slicelbSlbCounters](d, slicelbMapPairCounters, uint32(i)); err != nil {
			return err
		}
		atomic.StoreUint64(&d.pairKeys[i], 0)
	}
	return nil
}
