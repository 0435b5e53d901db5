package bpf

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Apply makes one change. It is done when Apply returns, and atomic for the
// programs; on an error nothing has changed. Errors are ErrExist, ErrNotExist,
// ErrFull, or say what in w cannot be encoded; they name w.
func (d *Datapath) Apply(w Write) error {
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.release()
	d.write.Lock()
	defer d.write.Unlock()
	if err := d.apply(w); err != nil {
		return fmt.Errorf("%s: %w", w, err)
	}
	for f := range d.followed {
		f.writes = append(f.writes, w)
	}
	return nil
}

func (d *Datapath) apply(w Write) error {
	switch w := w.(type) {
	case PutFrontend:
		return d.putFrontend(w)
	case DelFrontend:
		return d.delFrontend(w)
	case SetFrontendRef:
		return store(d.frontendRefs, slicelbMapFrontendRefs, w.Index, encodeFrontendRef(w.Ref))
	case SetCell:
		return d.setCell(w)
	case SetCellInfo:
		return d.setCellInfo(w)
	case PutView:
		key := encodeViewKey(w.Key)
		return d.insert(slicelbMapViews, w.Key, key, word(w.Cell, viewCheck(key)))
	case DelView:
		return d.remove(slicelbMapViews, encodeViewKey(w.Key))
	case SetSlots:
		return d.setSlots(w)
	case SetBackend:
		return d.setBackend(w)
	case SetBackendCell:
		return d.setBackendCell(w)
	case SetGroup:
		return d.setGroup(w)
	case SetPolicyTable:
		return d.setPolicyTable(w)
	case SetPolicy:
		return d.setPolicy(w)
	case PutCgroup:
		rule, err := encodeCgroup(w.Rule, w.ID)
		if err != nil {
			return err
		}
		return d.counting(w.ID, w.Rule.Counted, func() error { return d.putCgroup(w.ID, rule) })
	case SetCgroup:
		rule, err := encodeCgroup(w.Rule, w.ID)
		if err != nil {
			return err
		}
		return d.counting(w.ID, w.Rule.Counted, func() error {
			return d.storeWord(slicelbSlbWordStore{
				Map: uint32(slicelbSlbWordMapSLB_WORD_CGROUP), Cgroup: w.ID, Word: rule,
			})
		})
	case DelCgroup:
		return d.counting(w.ID, false, func() error { return d.delCgroup(w.ID) })
	case PutExpect:
		return d.putExpect(w)
	case SetExpect:
		return d.setExpect(w)
	case DelExpect:
		key, err := encodeExpectKey(w.Key)
		if err != nil {
			return err
		}
		return d.remove(slicelbMapExpect, key)
	case PutPattern:
		pattern, err := encodePattern(w.Pattern)
		if err != nil {
			return err
		}
		return d.insert(slicelbMapExpectPatterns, w.Key, encodePatternKey(w.Key), pattern)
	case SetPattern:
		rule, err := encodeRule(w.Rule)
		if err != nil {
			return err
		}
		return d.storeWord(slicelbSlbWordStore{
			Map:     uint32(slicelbSlbWordMapSLB_WORD_PATTERN),
			Pattern: encodePatternKey(w.Key), Word: rule,
		})
	case DelPattern:
		return d.remove(slicelbMapExpectPatterns, encodePatternKey(w.Key))
	}
	return fmt.Errorf("unknown write %T", w)
}

// insert never replaces: an update would reuse the old element under its readers.
func (d *Datapath) insert(table string, key fmt.Stringer, k, v any) error {
	m := d.maps[table]
	err := m.Update(k, v, ebpf.UpdateNoExist)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ebpf.ErrKeyExist):
		return ErrExist
	case errors.Is(err, unix.E2BIG):
		return &FullError{Table: table, Limit: m.MaxEntries(), Key: key.String()}
	}
	return err
}

// remove deletes an entry, absent or not.
func (d *Datapath) remove(table string, k any) error {
	err := d.maps[table].Delete(k)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// place checks an array's index. Zeroed memory names index 0, so nothing lives there.
func place(table string, index uint32, n int) error {
	if index == 0 {
		return fmt.Errorf("index 0 of %s is never given out", table)
	}
	if int64(index) >= int64(n) {
		return &FullError{Table: table, Limit: uint32(n), Key: fmt.Sprintf("index %d", index)}
	}
	return nil
}

// store is the one aligned 8-byte store that changes what programs do.
func store(words []uint64, table string, index uint32, w uint64) error {
	if err := place(table, index, len(words)); err != nil {
		return err
	}
	atomic.StoreUint64(&words[index], w)
	return nil
}

func (d *Datapath) storeWord(args slicelbSlbWordStore) error {
	ret, err := d.programs[slicelbProgSlbSetWord].Run(&ebpf.RunOptions{Context: args})
	if err != nil {
		return fmt.Errorf("run %s: %w", slicelbProgSlbSetWord, err)
	}
	switch errno := unix.Errno(-int32(ret)); errno {
	case 0:
		return nil
	case unix.ENOENT:
		return ErrNotExist
	default:
		return fmt.Errorf("%s: %w", slicelbProgSlbSetWord, errno)
	}
}

func (d *Datapath) putFrontend(w PutFrontend) error {
	key, err := encodeFrontendKey(w.Key)
	if err != nil {
		return err
	}
	if err := place(slicelbMapFrontendRefs, w.Index, len(d.frontendRefs)); err != nil {
		return err
	}
	d.frontends.add(key.Addr)
	if err := d.insert(slicelbMapFrontends, w.Key, key, word(w.Index, frontendCheck(key))); err != nil {
		d.frontends.remove(key.Addr)
		return err
	}
	return nil
}

func (d *Datapath) delFrontend(w DelFrontend) error {
	key, err := encodeFrontendKey(w.Key)
	if err != nil {
		return err
	}
	err = d.maps[slicelbMapFrontends].Delete(key)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil // its bit went with it
	}
	if err != nil {
		return err
	}
	d.frontends.remove(key.Addr)
	return nil
}

func (d *Datapath) setCell(w SetCell) error {
	cell, err := encodeCell(w.Cell)
	if err != nil {
		return err
	}
	if w.Cell.Action == Balance {
		if err := d.placeSlots(w.Cell.Base, w.Cell.Count); err != nil {
			return err
		}
		if err := store(d.cellAffinity, slicelbMapCellAffinity, w.Index, encodeAffinity(w.Cell)); err != nil {
			return err
		}
	}
	return store(d.cells, slicelbMapCells, w.Index, cell)
}

func (d *Datapath) placeSlots(base, count uint32) error {
	if uint64(base)+uint64(count) > uint64(len(d.slots)) {
		return &FullError{
			Table: slicelbMapSlots,
			Limit: uint32(len(d.slots)),
			Key:   fmt.Sprintf("%d slots at %d", count, base),
		}
	}
	return nil
}

func (d *Datapath) setSlots(w SetSlots) error {
	if err := d.placeSlots(w.Base, uint32(len(w.Slots))); err != nil {
		return err
	}
	for _, slot := range w.Slots {
		if err := place(slicelbMapBackends, SlotBackend(slot), len(d.backends)); err != nil {
			return err
		}
	}
	for i, slot := range w.Slots {
		atomic.StoreUint32(&d.slots[w.Base+uint32(i)], slot)
	}
	return nil
}

func (d *Datapath) setBackend(w SetBackend) error {
	if err := place(slicelbMapBackends, w.Index, len(d.backends)); err != nil {
		return err
	}
	var backend slicelbSlbBackend
	if w.Backend != (Backend{}) {
		var err error
		if backend, err = encodeBackend(w.Backend); err != nil {
			return err
		}
	}
	old := d.backends[w.Index]
	if old.Generation != 0 {
		d.backendCounters[w.Index].clear()
	}
	if backend.Generation != 0 {
		d.backendFilter.add(backend.Addr)
	}
	d.backends[w.Index] = backend
	d.setTraits(w.Index)
	if old.Generation != 0 {
		d.backendFilter.remove(old.Addr)
	}
	return nil
}

// setBackendCell stores a backend's word, and says when it went away by it.
func (d *Datapath) setBackendCell(w SetBackendCell) error {
	var was BackendCell
	if int(w.Index) < len(d.backendCells) {
		was = decodeBackendCell(atomic.LoadUint64(&d.backendCells[w.Index]))
	}
	if err := store(d.backendCells, slicelbMapBackendCells, w.Index, encodeBackendCell(w.Cell)); err != nil {
		return err
	}
	if w.Cell.State == BackendActive || w.Cell.State == BackendDraining || was.State == BackendFree || was.State == w.Cell.State ||
		atomic.LoadUint64(&d.backendTraits[w.Index])&(traitTerminateUDP|traitTerminateTCP) == 0 {
		return nil
	}
	d.sayGone()
	return nil
}

func (d *Datapath) sayGone() {
	select {
	case d.gone <- struct{}{}:
	default: // somebody is to look already
	}
}

// setCellInfo names a cell. A freed cell's counters go with its name.
func (d *Datapath) setCellInfo(w SetCellInfo) error {
	if err := place(slicelbMapCellInfos, w.Index, len(d.cellInfos)); err != nil {
		return err
	}
	info, err := encodeCellInfo(w.Info)
	if err != nil {
		return err
	}
	switch freed := w.Info.Family == 0; {
	case !freed:
		err = d.reuse(d.freedCells, w.Index)
	case d.cellInfos[w.Index].Family != 0:
		err = zero[slicelbSlbCounters](d, slicelbMapCellCounters, w.Index)
		d.latencies[w.Index] = slicelbSlbLatency{}
		d.free(d.freedCells, w.Index)
	}
	if err != nil {
		return err
	}
	d.cellInfos[w.Index] = info
	return nil
}

// setGroup names a group; index 0 is the host.
func (d *Datapath) setGroup(w SetGroup) error {
	if w.Index != 0 {
		if err := place(slicelbMapGroups, w.Index, len(d.groups)); err != nil {
			return err
		}
	}
	info, err := encodeGroupInfo(w.Group)
	if err != nil {
		return err
	}
	switch freed := w.Group.Name == ""; {
	case !freed:
		err = d.reuse(d.freedGroups, w.Index)
	case d.groupInfos[w.Index].Name[0] != 0:
		d.free(d.freedGroups, w.Index)
		err = d.forgetSeen(func(group uint32) bool { return group == w.Index })
	}
	if err != nil {
		return err
	}
	d.groupInfos[w.Index] = info
	atomic.StoreUint64(&d.groups[w.Index], encodeGroup(w.Group))
	return nil
}

func (d *Datapath) putExpect(w PutExpect) error {
	key, err := encodeExpectKey(w.Key)
	if err != nil {
		return err
	}
	rule, err := encodeRule(w.Rule)
	if err != nil {
		return err
	}
	return d.insert(slicelbMapExpect, w.Key, key, rule)
}

func (d *Datapath) setExpect(w SetExpect) error {
	key, err := encodeExpectKey(w.Key)
	if err != nil {
		return err
	}
	rule, err := encodeRule(w.Rule)
	if err != nil {
		return err
	}
	return d.storeWord(slicelbSlbWordStore{
		Map: uint32(slicelbSlbWordMapSLB_WORD_EXPECT), Expect: key, Word: rule,
	})
}

// frontendCheck is SLB_FRONTEND_CHECK, viewCheck SLB_VIEW_CHECK of api.h.
func frontendCheck(k slicelbSlbFrontendKey) uint32 {
	w := k.Addr.WordBe
	return w[0]*0x9e3779b1 ^ w[1]*0x85ebca6b ^ w[2]*0xc2b2ae35 ^ w[3]*0x27d4eb2f ^
		(uint32(k.PortBe)<<16 | uint32(k.Proto))
}

func viewCheck(k slicelbSlbViewKey) uint32 { return k.Cell*0x9e3779b1 ^ k.Group }
