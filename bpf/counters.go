package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Counters are what calls to a VIP came to, since its cell was made.
type Counters struct {
	Connects uint64 // connect() calls that were translated
	Flows    uint64 // choices made for unconnected UDP
	Passed   uint64 // left untouched by except, clients, translate or when_down
	Rejected uint64 // EHOSTUNREACH
}

// BackendCounters are what a backend was chosen for, since its index was given out.
type BackendCounters struct {
	Connects, Flows uint64
}

// CounterSnapshot is summed over the CPUs. Cells hold all groups' calls; what a
// cell has more than its pairs came when the table of pairs was full.
type CounterSnapshot struct {
	Cells    map[uint32]Counters  // by default cell
	Pairs    map[ViewKey]Counters // by default cell and group
	Backends map[uint32]BackendCounters
}

// Stats count what should be rare, over all CPUs, since the maps were made.
type Stats struct {
	StorageFailed uint64 // no socket storage: the peer's name is lost
	LoopbackNetns uint64 // a loopback backend was asked for from another network namespace
	ReplyUnknown  uint64 // datagrams from a backend that the socket asked by no VIP's name, or no more
	StaleFrontend uint64 // a peer's name was declined: the frontend is gone
	PairsFull     uint64 // counted by the cell alone
	CgroupsFull   uint64 // an anchor that the kernel could not map
	EventsLost    uint64 // hints that found the ring buffer full
	AnchorsMapped uint64 // directories mapped before mkdir returned
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
		Backends: make(map[uint32]BackendCounters),
	}
	for i, info := range d.cellInfos {
		if info.Family == 0 || info.Group[0] != 0 {
			continue
		}
		var perCPU []slicelbSlbCounters
		if err := d.maps[slicelbMapCellCounters].Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read counters of cell %d: %w", i, err)
		}
		out.Cells[uint32(i)] = sum(perCPU)
	}
	for i, b := range d.backends {
		if b.Generation == 0 {
			continue
		}
		var perCPU []slicelbSlbBackendCounters
		if err := d.maps[slicelbMapBackendCounters].Lookup(uint32(i), &perCPU); err != nil {
			return nil, fmt.Errorf("read counters of backend %d: %w", i, err)
		}
		var n BackendCounters
		for _, c := range perCPU {
			n.Connects += c.Connects
			n.Flows += c.Flows
		}
		out.Backends[uint32(i)] = n
	}
	err := d.eachPair(func(k slicelbSlbViewKey, perCPU []slicelbSlbCounters) {
		out.Pairs[decodeViewKey(k)] = sum(perCPU)
	})
	return out, err
}

func sum(perCPU []slicelbSlbCounters) Counters {
	var n Counters
	for _, c := range perCPU {
		n.Connects += c.Connects
		n.Flows += c.Flows
		n.Passed += c.Passed
		n.Rejected += c.Rejected
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

// zeroCounters ends what an index counted for its former owner.
func (d *Datapath) zeroCounters(table string, index uint32) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	var zero any = make([]slicelbSlbCounters, cpus)
	if table == slicelbMapBackendCounters {
		zero = make([]slicelbSlbBackendCounters, cpus)
	}
	if err := d.maps[table].Put(index, zero); err != nil {
		return fmt.Errorf("clear %s: %w", table, err)
	}
	return nil
}

// free remembers that the pairs of a cell or group count for nobody any more;
// reuse deletes them before the index counts for another.
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

// prunePairs deletes the pairs of freed cells and groups. It walks the whole
// table, so it waits until an index is given out again or somebody reads.
func (d *Datapath) prunePairs() error {
	d.pairs.Lock()
	defer d.pairs.Unlock()
	if len(d.freedCells) == 0 && len(d.freedGroups) == 0 {
		return nil
	}
	var gone []slicelbSlbViewKey
	err := d.eachPair(func(k slicelbSlbViewKey, _ []slicelbSlbCounters) {
		if d.freedCells[k.Cell] || d.freedGroups[k.Group] {
			gone = append(gone, k)
		}
	})
	if err != nil {
		return err
	}
	for _, k := range gone {
		if err := d.remove(slicelbMapPairCounters, k); err != nil {
			return fmt.Errorf("delete counters: %w", err)
		}
	}
	clear(d.freedCells)
	clear(d.freedGroups)
	return nil
}

// eachPair iterates by key: pairs come but do not go while it does, and one
// that is missed is seen by the next snapshot.
func (d *Datapath) eachPair(f func(slicelbSlbViewKey, []slicelbSlbCounters)) error {
	var (
		key    slicelbSlbViewKey
		perCPU []slicelbSlbCounters
	)
	it := d.maps[slicelbMapPairCounters].Iterate()
	for it.Next(&key, &perCPU) {
		f(key, perCPU)
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return fmt.Errorf("read %s: %w", slicelbMapPairCounters, err)
	}
	return nil
}
