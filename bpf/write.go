package bpf

import "fmt"

// Write is one change of one table entry, atomic for the programs. The order of
// a list of writes is its safety; nothing reorders it.
type Write interface {
	fmt.Stringer // one line, stable: goldens and errors show it
	write()
}

// Put inserts an entry that must not exist; Del deletes one, absent or not; Set
// stores a word in place.
type (
	PutFrontend struct {
		Key   FrontendKey
		Index uint32
	}
	DelFrontend    struct{ Key FrontendKey }
	SetFrontendRef struct {
		Index uint32
		Ref   FrontendRef
	}
	SetCell struct {
		Index uint32
		Cell  Cell
	}
	SetCellInfo struct {
		Index uint32
		Info  CellInfo
	}
	PutView struct {
		Key  ViewKey
		Cell uint32
	}
	DelView struct{ Key ViewKey }
	// SetSlots fills a region that no cell names.
	SetSlots struct {
		Base  uint32
		Slots []uint32
	}
	// SetBackend writes an index that no slot names and whose grace period is over.
	SetBackend struct {
		Index   uint32
		Backend Backend
	}
	SetBackendCell struct {
		Index uint32
		Cell  BackendCell
	}
	SetGroup struct {
		Index uint32
		Group Group
	}
	PutCgroup struct {
		ID   uint64
		Rule Rule
	}
	SetCgroup struct {
		ID   uint64
		Rule Rule
	}
	DelCgroup struct{ ID uint64 }
	PutExpect struct {
		Key  ExpectKey
		Rule Rule
	}
	SetExpect struct {
		Key  ExpectKey
		Rule Rule
	}
	DelExpect  struct{ Key ExpectKey }
	PutPattern struct {
		Key     PatternKey
		Pattern Pattern
	}
	SetPattern struct {
		Key  PatternKey
		Rule Rule // prefix and suffix stay
	}
	DelPattern struct{ Key PatternKey }
)

func (PutFrontend) write()    {}
func (DelFrontend) write()    {}
func (SetFrontendRef) write() {}
func (SetCell) write()        {}
func (SetCellInfo) write()    {}
func (PutView) write()        {}
func (DelView) write()        {}
func (SetSlots) write()       {}
func (SetBackend) write()     {}
func (SetBackendCell) write() {}
func (SetGroup) write()       {}
func (PutCgroup) write()      {}
func (SetCgroup) write()      {}
func (DelCgroup) write()      {}
func (PutExpect) write()      {}
func (SetExpect) write()      {}
func (DelExpect) write()      {}
func (PutPattern) write()     {}
func (SetPattern) write()     {}
func (DelPattern) write()     {}
