package lbtest

import (
	"fmt"
	"slices"

	"github.com/slicelb/slicelb/bpf"
)

func (m *Maps) putFrontend(w bpf.PutFrontend) error {
	d := &m.d
	if m.frontends[w.Index] {
		return unsafe("frontend index %d is named, or was", w.Index)
	}
	if cell := d.FrontendRefs[w.Index].Cell; d.Cells[cell].Action == bpf.None {
		return unsafe("frontend %d leads to cell %d, which is empty", w.Index, cell)
	}
	if err := put(d.Frontends, "frontends", m.limits.Frontends, w.Key, w.Index); err != nil {
		return err
	}
	m.named[w.Index]++
	m.nameFrontend(w.Index)
	return nil
}

func (m *Maps) delFrontend(w bpf.DelFrontend) error {
	d := &m.d
	if i, ok := d.Frontends[w.Key]; ok {
		m.named[i]--
	}
	delete(d.Frontends, w.Key)
	return nil
}

func (m *Maps) setFrontendRef(w bpf.SetFrontendRef) error {
	d := &m.d
	if err := within("frontend_refs", w.Index, m.limits.Frontends); err != nil {
		return err
	}
	named := m.named[w.Index] > 0
	if named && d.Cells[w.Ref.Cell].Action == bpf.None {
		return unsafe("a live frontend gets cell %d, which is empty", w.Ref.Cell)
	}
	if named && w.Ref.Gen != d.FrontendRefs[w.Index].Gen {
		return unsafe("the generation of a live frontend changes")
	}
	d.FrontendRefs[w.Index] = w.Ref
	if named {
		m.nameFrontend(w.Index)
	}
	return nil
}

func (m *Maps) setCellInfo(w bpf.SetCellInfo) error {
	d := &m.d
	if err := within("cell_infos", w.Index, m.limits.Cells); err != nil {
		return err
	}
	if w.Info.Family == 0 {
		if d.Cells[w.Index].Action != bpf.None {
			return unsafe("cell %d loses its name but still decides", w.Index)
		}
		delete(d.CellInfos, w.Index)
		return nil
	}
	if m.cells[w.Index] || m.views[w.Index] {
		return unsafe("cell %d is named, or was", w.Index)
	}
	d.CellInfos[w.Index] = w.Info
	return nil
}

func (m *Maps) putView(w bpf.PutView) error {
	d := &m.d
	if d.Cells[w.Cell].Action == bpf.None || w.Cell == 0 {
		return unsafe("view leads to cell %d, which is empty", w.Cell)
	}
	if d.Groups[w.Key.Group].Name == "" {
		return unsafe("group %d has no name", w.Key.Group)
	}
	if err := put(d.Views, "views", m.limits.Views, w.Key, w.Cell); err != nil {
		return err
	}
	if m.viewsOf[w.Key.Cell] == nil {
		m.viewsOf[w.Key.Cell] = map[uint32]uint32{}
	}
	m.viewsOf[w.Key.Cell][w.Key.Group] = w.Cell
	m.nameView(w.Key, w.Cell)
	return nil
}

func (m *Maps) delView(w bpf.DelView) error {
	d := &m.d
	// Who read the default cell's word may look for the view only now: without
	// it the answer must be the same.
	if cell, ok := d.Views[w.Key]; ok && m.cells[w.Key.Cell] && m.callers[w.Key.Group] {
		for _, word := range m.words[w.Key.Cell] {
			if !m.same(d.Cells[cell], word) {
				return unsafe("a view that still decides is deleted")
			}
		}
	}
	delete(d.Views, w.Key)
	delete(m.viewsOf[w.Key.Cell], w.Key.Group)
	return nil
}

func (m *Maps) setSlots(w bpf.SetSlots) error {
	d := &m.d
	end := uint64(w.Base) + uint64(len(w.Slots))
	if end > uint64(m.limits.Slots) {
		return fmt.Errorf("slots end at %d of %d", end, m.limits.Slots)
	}
	for base, n := range m.regions {
		if uint64(base) < end && w.Base < base+n {
			return unsafe("slots at %d are named, or were", base)
		}
	}
	for _, s := range w.Slots {
		b := bpf.SlotBackend(s)
		if d.BackendCells[b].State == bpf.BackendFree || b == 0 {
			return unsafe("backend %d is free", b)
		}
	}
	if n := int(end) - len(m.slots); n > 0 {
		m.slots = append(m.slots, make([]uint32, n)...)
	}
	copy(m.slots[w.Base:], w.Slots)
	return nil
}

func (m *Maps) setBackend(w bpf.SetBackend) error {
	d := &m.d
	if err := within("backends", w.Index, m.limits.Backends); err != nil {
		return err
	}
	if m.backends[w.Index] {
		return unsafe("backend %d is named, or was", w.Index)
	}
	if w.Backend.Gen == 0 || w.Backend.Gen == d.Backends[w.Index].Gen {
		return unsafe("backend %d gets generation %d again", w.Index, w.Backend.Gen)
	}
	d.Backends[w.Index] = w.Backend
	return nil
}

func (m *Maps) setBackendCell(w bpf.SetBackendCell) error {
	d := &m.d
	if w.Cell.Gen != d.Backends[w.Index].Gen {
		return unsafe("backend %d: generation %d is not its own", w.Index, w.Cell.Gen)
	}
	if w.Cell.State != bpf.BackendActive {
		if base, leads := m.leads(w.Index, w.Cell.State == bpf.BackendFree); leads {
			return unsafe("slots at %d lead to backend %d, or did", base, w.Index)
		}
	}
	d.BackendCells[w.Index] = w.Cell
	if w.Cell.State != bpf.BackendFree {
		m.backends[w.Index] = true
	}
	return nil
}

func (m *Maps) setGroup(w bpf.SetGroup) error {
	d := &m.d
	if err := within("groups", w.Index, m.limits.Groups); err != nil {
		return err
	}
	if old := d.Groups[w.Index]; old.Name != w.Group.Name && m.groups[w.Index] && old.Name != "" {
		return unsafe("group %d is named, or was", w.Index)
	}
	if w.Group.Name == "" {
		delete(d.Groups, w.Index)
		return nil
	}
	d.Groups[w.Index] = w.Group
	return nil
}

func (m *Maps) setCell(w bpf.SetCell) error {
	if err := within("cells", w.Index, m.limits.Cells); err != nil {
		return err
	}
	c := w.Cell
	switch {
	case (c.Action == bpf.Balance) != (c.Count > 0):
		return fmt.Errorf("%d slots with %s", c.Count, c.Action)
	case w.Index == 0:
		return unsafe("cell 0 stands for nothing")
	case c.Action == bpf.None && (m.cells[w.Index] || m.views[w.Index]):
		return unsafe("cell %d is named, or was", w.Index)
	case m.d.CellInfos[w.Index].Family == 0:
		return unsafe("cell %d has no name", w.Index)
	}
	if c.Action == bpf.Balance {
		if uint64(c.Base)+uint64(c.Count) > uint64(len(m.slots)) {
			return unsafe("slots at %d were never written", c.Base)
		}
		for _, s := range m.slots[c.Base : c.Base+c.Count] {
			b := bpf.SlotBackend(s)
			if m.d.BackendCells[b].State != bpf.BackendActive {
				return unsafe("backend %d is %s", b, m.d.BackendCells[b].State)
			}
		}
	}
	m.d.Cells[w.Index] = c
	m.nameCell(w.Index)
	return nil
}

// leads finds slots that lead to a backend, and for one that is to be free, that
// did before the newest barrier: a call that is on its way may still go to one that
// only takes no more.
func (m *Maps) leads(backend uint32, free bool) (uint32, bool) {
	in := func(base, n uint32) bool {
		return slices.ContainsFunc(m.slots[base:base+n], func(s uint32) bool { return bpf.SlotBackend(s) == backend })
	}
	if !free {
		for i := range m.d.Cells {
			if c := m.d.Cells[i]; (m.cells[i] || m.views[i]) && c.Action == bpf.Balance && in(c.Base, c.Count) {
				return c.Base, true
			}
		}
		return 0, false
	}
	for base, n := range m.regions {
		if in(base, n) {
			return base, true
		}
	}
	return 0, false
}

// same compares what two cells answer.
func (m *Maps) same(a, b bpf.Cell) bool {
	return a.Action == b.Action && a.Count == b.Count && a.Algorithm == b.Algorithm && a.Affinity == b.Affinity &&
		(a.Action != bpf.Balance || slices.Equal(m.slots[a.Base:a.Base+a.Count], m.slots[b.Base:b.Base+b.Count]))
}
