package lbtest

import "github.com/slicelb/slicelb/bpf"

// Barrier lets every program that is on its way finish.
func (m *Maps) Barrier() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.barriers++
	m.pass()
	return nil
}

func (m *Maps) pass() {
	m.policies.pass(m.d.PolicyWord.Base)
	m.words = map[uint32][]bpf.Cell{}
	m.callers = map[uint32]bool{0: true}
	m.frontends, m.views, m.cells = map[uint32]bool{}, map[uint32]bool{}, map[uint32]bool{}
	m.groups, m.backends, m.regions = map[uint32]bool{}, map[uint32]bool{}, map[uint32]uint32{}
	for _, i := range m.d.Frontends {
		m.nameFrontend(i)
	}
	for k, c := range m.d.Views {
		m.nameView(k, c)
	}
	for i, c := range m.d.BackendCells {
		if c.State != bpf.BackendFree {
			m.backends[i] = true
		}
	}
	for _, r := range m.d.Cgroups {
		m.groups[r.Group], m.callers[r.Group] = true, true
	}
	for _, r := range m.d.Expect {
		m.groups[r.Group] = true
	}
	for _, p := range m.d.Patterns {
		m.groups[p.Rule.Group] = true
	}
}

// nameFrontend notes that calls to a frontend's index reach its cell, and the
// views of that.
func (m *Maps) nameFrontend(i uint32) {
	m.frontends[i] = true
	cell := m.d.FrontendRefs[i].Cell
	if m.cells[cell] {
		return
	}
	m.cells[cell] = true
	m.nameCell(cell)
	for _, view := range m.viewsOf[cell] {
		m.views[view] = true
		m.nameCell(view)
	}
}

// nameView notes that calls to a default cell reach a view.
func (m *Maps) nameView(k bpf.ViewKey, cell uint32) {
	m.groups[k.Group] = true
	if m.cells[k.Cell] {
		m.views[cell] = true
		m.nameCell(cell)
	}
}

// nameCell notes what a cell that calls reach leads to.
func (m *Maps) nameCell(i uint32) {
	c := m.d.Cells[i]
	if !m.cells[i] && !m.views[i] {
		return
	}
	if c.Selective {
		m.words[i] = append(m.words[i], c)
	}
	if c.Action != bpf.Balance {
		return
	}
	m.regions[c.Base] = max(m.regions[c.Base], c.Count)
	for _, s := range m.slots[c.Base : c.Base+c.Count] {
		m.backends[bpf.SlotBackend(s)] = true
	}
}
