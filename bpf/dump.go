package bpf

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Dump reads what the maps hold. Against the kernel, which maps and unmaps
// cgroups meanwhile, it is exact for what stays in place throughout.
func (d *Datapath) Dump() (*Dump, error) {
	if err := d.acquire(); err != nil {
		return nil, err
	}
	defer d.release()
	d.write.Lock()
	defer d.write.Unlock()
	out := &Dump{
		Frontends:    make(map[FrontendKey]uint32),
		FrontendRefs: make(map[uint32]FrontendRef),
		Cells:        make(map[uint32]Cell),
		CellInfos:    make(map[uint32]CellInfo),
		Views:        make(map[ViewKey]uint32),
		Backends:     make(map[uint32]Backend),
		BackendCells: make(map[uint32]BackendCell),
		Slots:        make(map[uint32][]uint32),
		Groups:       make(map[uint32]Group),
		Cgroups:      make(map[uint64]Rule),
		Expect:       make(map[ExpectKey]Rule),
		Patterns:     make(map[PatternKey]Pattern),
	}
	d.dumpArrays(out)
	d.dumpPolicy(out)

	err := errors.Join(
		each(d.maps[slicelbMapFrontends], func(k slicelbSlbFrontendKey, v uint64) {
			out.Frontends[decodeFrontendKey(k)], _ = halves(v)
		}),
		each(d.maps[slicelbMapViews], func(k slicelbSlbViewKey, v uint64) {
			out.Views[decodeViewKey(k)], _ = halves(v)
		}),
		d.dumpCgroups(out.Cgroups),
		each(d.maps[slicelbMapExpect], func(k slicelbSlbExpectKey, w uint64) {
			out.Expect[decodeExpectKey(k)] = decodeRule(w)
		}),
		each(d.maps[slicelbMapExpectPatterns], func(k slicelbSlbPatternKey, p slicelbSlbPattern) {
			out.Patterns[decodePatternKey(k)] = decodePattern(p)
		}),
	)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Cgroups reads the one table that the kernel writes to as well, as Dump does.
func (d *Datapath) Cgroups() (map[uint64]Rule, error) {
	if err := d.acquire(); err != nil {
		return nil, err
	}
	defer d.release()
	out := make(map[uint64]Rule)
	return out, d.dumpCgroups(out)
}

func (d *Datapath) dumpCgroups(out map[uint64]Rule) error {
	return each(d.maps[slicelbMapCgroups], func(id, w uint64) {
		// A word of another id is void to the programs, and nothing that Set changes.
		if rule, ok := decodeCgroup(w, id); ok {
			out[id] = rule
		} else {
			out[id] = Rule{}
		}
	})
}

func (d *Datapath) dumpArrays(out *Dump) {
	for i := range d.frontendRefs {
		if w := atomic.LoadUint64(&d.frontendRefs[i]); w != 0 {
			out.FrontendRefs[uint32(i)] = decodeFrontendRef(w)
		}
	}
	for i := range d.cells {
		index := uint32(i)
		info := decodeCellInfo(d.cellInfos[i])
		if info.Family != 0 {
			out.CellInfos[index] = info
		}
		cell := decodeCell(atomic.LoadUint64(&d.cells[i]), atomic.LoadUint64(&d.cellAffinity[i]))
		if cell.Action == None && info.Family == 0 {
			continue
		}
		out.Cells[index] = cell
		if end := cell.Base + cell.Count; cell.Action == Balance && end <= uint32(len(d.slots)) {
			out.Slots[cell.Base] = append([]uint32(nil), d.slots[cell.Base:end]...)
		}
	}
	for i := range d.backends {
		if b := decodeBackend(d.backends[i]); b.Gen != 0 {
			out.Backends[uint32(i)] = b
		}
		if w := atomic.LoadUint64(&d.backendCells[i]); w != 0 {
			out.BackendCells[uint32(i)] = decodeBackendCell(w)
		}
	}
	for i := range d.groups {
		if g := decodeGroup(atomic.LoadUint64(&d.groups[i]), d.groupInfos[i]); g.Name != "" {
			out.Groups[uint32(i)] = g
		}
	}
}

// each calls f for the entries of a hash map. It reads bucket by bucket, each
// under its lock, so an entry that stays is seen exactly once, whatever comes
// and goes meanwhile; iterating by keys would start over or stop there.
func each[K, V any](m *ebpf.Map, f func(K, V)) error {
	var cursor ebpf.MapBatchCursor
	keys, values := make([]K, 512), make([]V, 512)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			f(keys[i], values[i])
		}
		switch {
		case err == nil:
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return nil
		case errors.Is(err, unix.ENOSPC): // a bucket of more entries than the batch
			keys, values = make([]K, 2*len(keys)), make([]V, 2*len(values))
		default:
			return fmt.Errorf("read %s: %w", m, err)
		}
	}
}
