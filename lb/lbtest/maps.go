// Package lbtest holds the maps in memory, for tests: with the kernel's errors,
// with a check that nothing is reused before a barrier, and with the look-up
// that the programs do.
package lbtest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/slicelb/slicelb/bpf"
)

// ErrUnsafe is returned by Apply for a write that a running program could see
// half done: its target is named, or was named since the last barrier.
var ErrUnsafe = errors.New("unsafe write")

// DefaultLimits are those of the real maps, with fewer slots.
var DefaultLimits = bpf.Limits{
	Frontends: 65536, Cells: 65536, Views: 65536, Backends: 262144,
	Slots: 1 << 20, Groups: 65536, Cgroups: 262144, Expect: 65536, PolicyLines: bpf.PolicyLines,
}

// Maps is a data plane in memory. Its methods may be called from any goroutine.
type Maps struct {
	mu     sync.Mutex
	limits bpf.Limits
	d      bpf.Dump
	slots  []uint32 // grows to limits.Slots

	// What programs that are on their way may still use: what was named at any
	// time since the last barrier, beside what is named now.
	frontends map[uint32]bool
	views     map[uint32]bool // view cells
	cells     map[uint32]bool // default cells
	groups    map[uint32]bool
	callers   map[uint32]bool // groups that cgroups name
	backends  map[uint32]bool
	regions   map[uint32]uint32     // base -> count
	words     map[uint32][]bpf.Cell // of selective default cells

	policies policies

	named   map[uint32]int               // frontends now at an index
	viewsOf map[uint32]map[uint32]uint32 // default cell -> group -> view cell

	writes, barriers int
}

// New returns empty maps.
func New(limits bpf.Limits) *Maps {
	m := &Maps{limits: limits, d: bpf.Dump{
		Frontends:    map[bpf.FrontendKey]uint32{},
		FrontendRefs: map[uint32]bpf.FrontendRef{},
		Cells:        map[uint32]bpf.Cell{},
		CellInfos:    map[uint32]bpf.CellInfo{},
		Views:        map[bpf.ViewKey]uint32{},
		Backends:     map[uint32]bpf.Backend{},
		BackendCells: map[uint32]bpf.BackendCell{},
		Groups:       map[uint32]bpf.Group{},
		Cgroups:      map[uint64]bpf.Rule{},
		Expect:       map[bpf.ExpectKey]bpf.Rule{},
		Patterns:     map[bpf.PatternKey]bpf.Pattern{},
	}, named: map[uint32]int{}, viewsOf: map[uint32]map[uint32]uint32{}}
	m.pass()
	return m
}

// Clone is a copy with the same content and the same programs on their way.
func (m *Maps) Clone() *Maps {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &Maps{
		limits: m.limits, d: *m.dump(), slots: slices.Clone(m.slots),
		frontends: maps.Clone(m.frontends), views: maps.Clone(m.views), cells: maps.Clone(m.cells),
		groups: maps.Clone(m.groups), callers: maps.Clone(m.callers), backends: maps.Clone(m.backends), regions: maps.Clone(m.regions),
		words: map[uint32][]bpf.Cell{}, policies: m.policies.clone(), named: maps.Clone(m.named), viewsOf: map[uint32]map[uint32]uint32{},
	}
	for i, views := range m.viewsOf {
		c.viewsOf[i] = maps.Clone(views)
	}
	for i, words := range m.words {
		c.words[i] = slices.Clone(words)
	}
	return c
}

func (m *Maps) Limits() bpf.Limits { return m.limits }

// Writes and Barriers count what was done.
func (m *Maps) Writes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

func (m *Maps) Barriers() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.barriers
}

// Dump is a copy of what the maps hold.
func (m *Maps) Dump() (*bpf.Dump, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dump()
	for i, r := range d.FrontendRefs {
		if r == (bpf.FrontendRef{}) {
			delete(d.FrontendRefs, i)
		}
	}
	for i, c := range d.Cells {
		if _, named := d.CellInfos[i]; c.Action == bpf.None && !named {
			delete(d.Cells, i)
		}
	}
	for i, b := range d.Backends {
		if b.Gen == 0 {
			delete(d.Backends, i)
		}
	}
	d.Slots = map[uint32][]uint32{}
	for _, c := range d.Cells {
		if c.Action == bpf.Balance {
			d.Slots[c.Base] = slices.Clone(m.slots[c.Base : c.Base+c.Count])
		}
	}
	return d, nil
}

func (m *Maps) dump() *bpf.Dump {
	return &bpf.Dump{
		PolicyWord: m.d.PolicyWord, Policy: m.d.Policy, PolicyLines: m.d.PolicyLines, PolicySum: m.d.PolicySum,
		Frontends: maps.Clone(m.d.Frontends), FrontendRefs: maps.Clone(m.d.FrontendRefs),
		Cells: maps.Clone(m.d.Cells), CellInfos: maps.Clone(m.d.CellInfos), Views: maps.Clone(m.d.Views),
		Backends: maps.Clone(m.d.Backends), BackendCells: maps.Clone(m.d.BackendCells),
		Groups: maps.Clone(m.d.Groups), Cgroups: maps.Clone(m.d.Cgroups),
		Expect: maps.Clone(m.d.Expect), Patterns: maps.Clone(m.d.Patterns),
	}
}

// Cgroups is a copy of one table.
func (m *Maps) Cgroups() (map[uint64]bpf.Rule, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.d.Cgroups), nil
}

// Mkdir and Rmdir are what the kernel does by itself.
func (m *Maps) Mkdir(id uint64, r bpf.Rule) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.d.Cgroups[id]; !ok {
		m.d.Cgroups[id] = r
		m.groups[r.Group], m.callers[r.Group] = true, true
	}
}

func (m *Maps) Rmdir(id uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.d.Cgroups, id)
}

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

// Apply does one write.
func (m *Maps) Apply(w bpf.Write) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.apply(w); err != nil {
		return fmt.Errorf("%s: %w", w, err)
	}
	m.writes++
	return nil
}

func (m *Maps) apply(w bpf.Write) error {
	d := &m.d
	switch w := w.(type) {
	case bpf.PutFrontend:
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
	case bpf.DelFrontend:
		if i, ok := d.Frontends[w.Key]; ok {
			m.named[i]--
		}
		delete(d.Frontends, w.Key)
	case bpf.SetFrontendRef:
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
	case bpf.SetCell:
		return m.setCell(w)
	case bpf.SetCellInfo:
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
	case bpf.PutView:
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
	case bpf.DelView:
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
	case bpf.SetSlots:
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
	case bpf.SetBackend:
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
	case bpf.SetBackendCell:
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
	case bpf.SetGroup:
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
	case bpf.SetPolicyTable:
		return m.setPolicyTable(w)
	case bpf.SetPolicy:
		return m.setPolicy(w)
	case bpf.PutCgroup:
		if err := m.rule(w.Rule); err != nil {
			return err
		}
		m.callers[w.Rule.Group] = true
		return put(d.Cgroups, "cgroups", m.limits.Cgroups, w.ID, w.Rule)
	case bpf.SetCgroup:
		if err := m.rule(w.Rule); err != nil {
			return err
		}
		m.callers[w.Rule.Group] = true
		return set(d.Cgroups, w.ID, func(r *bpf.Rule) { *r = w.Rule })
	case bpf.DelCgroup:
		delete(d.Cgroups, w.ID)
	case bpf.PutExpect:
		if err := m.rule(w.Rule); err != nil {
			return err
		}
		return put(d.Expect, "expect", m.limits.Expect, w.Key, w.Rule)
	case bpf.SetExpect:
		if err := m.rule(w.Rule); err != nil {
			return err
		}
		return set(d.Expect, w.Key, func(r *bpf.Rule) { *r = w.Rule })
	case bpf.DelExpect:
		delete(d.Expect, w.Key)
	case bpf.PutPattern:
		if err := m.rule(w.Pattern.Rule); err != nil {
			return err
		}
		return put(d.Patterns, "expect_patterns", m.limits.Expect, w.Key, w.Pattern)
	case bpf.SetPattern:
		if err := m.rule(w.Rule); err != nil {
			return err
		}
		return set(d.Patterns, w.Key, func(p *bpf.Pattern) { p.Rule = w.Rule })
	case bpf.DelPattern:
		delete(d.Patterns, w.Key)
	default:
		return fmt.Errorf("unknown write %T", w)
	}
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

// rule checks that what a rule names is there.
func (m *Maps) rule(r bpf.Rule) error {
	if r.Group != 0 && m.d.Groups[r.Group].Name == "" {
		return unsafe("group %d has no name", r.Group)
	}
	m.groups[r.Group] = true
	return nil
}

func unsafe(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnsafe}, args...)...)
}

func within(table string, index, limit uint32) error {
	if index >= limit {
		return fmt.Errorf("%s: index %d of %d", table, index, limit)
	}
	return nil
}

func put[K comparable, V any](m map[K]V, table string, limit uint32, k K, v V) error {
	if _, ok := m[k]; ok {
		return bpf.ErrExist
	}
	if len(m) >= int(limit) {
		return &bpf.FullError{Table: table, Limit: limit, Key: fmt.Sprint(k)}
	}
	m[k] = v
	return nil
}

func set[K comparable, V any](m map[K]V, k K, change func(*V)) error {
	v, ok := m[k]
	if !ok {
		return bpf.ErrNotExist
	}
	change(&v)
	m[k] = v
	return nil
}
