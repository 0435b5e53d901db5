package bpf

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Dump reads what the maps hold, as it was between two writes. Writes do not wait
// for it but while it copies what the arrays say: what is written while it reads
// the hashes is done to its copy, too. Against the kernel, which maps and unmaps
// cgroups meanwhile, it is exact for what stays in place throughout.
func (d *Datapath) Dump() (*Dump, error) {
	if err := d.acquire(); err != nil {
		return nil, err
	}
	defer d.release()
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
	meanwhile := d.follow()
	err := d.dumpHashes(out)
	arrays := d.copyArrays(meanwhile)
	if err != nil {
		return nil, err
	}
	for _, w := range meanwhile.writes {
		out.write(w)
	}
	d.dumpArrays(arrays, out)
	return out, nil
}

// followed are the writes since a moment.
type followed struct{ writes []Write }

// follow has writes noted until copyArrays.
func (d *Datapath) follow() *followed {
	d.write.Lock()
	defer d.write.Unlock()
	f := &followed{}
	d.followed[f] = true
	return f
}

func (d *Datapath) dumpHashes(out *Dump) error {
	return errors.Join(
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
}

// write does to the hashes of a dump what a write has done to the maps.
func (out *Dump) write(w Write) {
	switch w := w.(type) {
	case PutFrontend:
		out.Frontends[w.Key] = w.Index
	case DelFrontend:
		delete(out.Frontends, w.Key)
	case PutView:
		out.Views[w.Key] = w.Cell
	case DelView:
		delete(out.Views, w.Key)
	case PutCgroup:
		out.Cgroups[w.ID] = w.Rule
	case SetCgroup:
		out.Cgroups[w.ID] = w.Rule
	case DelCgroup:
		delete(out.Cgroups, w.ID)
	case PutExpect:
		out.Expect[w.Key] = w.Rule
	case SetExpect:
		out.Expect[w.Key] = w.Rule
	case DelExpect:
		delete(out.Expect, w.Key)
	case PutPattern:
		out.Patterns[w.Key] = w.Pattern
	case SetPattern:
		p := out.Patterns[w.Key]
		p.Rule = w.Rule
		out.Patterns[w.Key] = p
	case DelPattern:
		delete(out.Patterns, w.Key)
	}
}

// Cgroups reads the one table that the kernel writes to as well, as Dump does. It is for
// who writes, between two writes: split children that it does not find count no more.
func (d *Datapath) Cgroups() (map[uint64]Rule, error) {
	if err := d.acquire(); err != nil {
		return nil, err
	}
	defer d.release()
	out := make(map[uint64]Rule)
	if err := d.dumpCgroups(out); err != nil {
		return nil, err
	}
	d.keepChildren(out)
	return out, nil
}

func (d *Datapath) dumpCgroups(out map[uint64]Rule) error {
	room := atomic.LoadInt64(d.cgroupRoom)
	err := each(d.maps[slicelbMapCgroups], func(id, w uint64) {
		// A word of another id is void to the programs, and nothing that Set changes.
		if rule, ok := decodeCgroup(w, id); ok {
			out[id] = rule
		} else {
			out[id] = Rule{}
		}
	})
	if err == nil {
		d.countCgroups(room, len(out))
	}
	return err
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
