// Package lbtest holds the maps in memory, for tests: with the kernel's errors,
// with a check that nothing is reused before a barrier, and with the look-up
// that the programs do.
package lbtest

import (
	"maps"
	"slices"
	"sync"

	"github.com/slicelb/slicelb/bpf"
)

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
