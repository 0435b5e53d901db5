package bpf

import "net/netip"

// The tables that the programs read, as Go values. Indexes and generations are
// the writer's to choose (package lb does); this package only encodes them.
// Addresses and ports are in host order here and in network order in the maps.

// Protocol numbers of a frontend.
const (
	TCP uint8 = 6
	UDP uint8 = 17
)

// FrontendKey is a VIP's address as a caller names it. Addr is unmapped. Port 0
// stands for every port of the address that has no entry of its own: it is refused.
type FrontendKey struct {
	Addr  netip.AddrPort
	Proto uint8
}

// FrontendRef is what a frontend's index stands for: the default cell of its
// VIP and family. Gen grows each time an index is given to another frontend.
type FrontendRef struct {
	Cell uint32
	Gen  uint32 // 31 bits
	Rest bool   // its key's port is 0: calls are refused
}

// Action is what a cell does with a call (enum slb_action).
type Action uint8

const (
	None         Action = iota // as if there were no frontend
	Balance                    // a slot of [Base, Base+Count), by Algorithm
	PassExcept                 // untouched: the group stands in except
	PassHidden                 // untouched: the group is not among clients
	PassDown                   // untouched: no backend, when_down = "pass"
	RejectHidden               // EHOSTUNREACH: not among clients, hidden = "reject"
	RejectDown                 // EHOSTUNREACH: no backend
)

// Algorithm is how a cell finds one of its slots (enum slb_algorithm).
type Algorithm uint8

const (
	Random           Algorithm = iota // any slot
	LeastConnections                  // the better of two by open sockets over weight; the backend with the most slots comes last
	Maglev                            // the slot that the caller's key leads to
)

// Cell is one 8-byte decision: stored at once, read at once. What stands in
// Affinity and Strict is stored beside it, before.
type Cell struct {
	Base, Count uint32 // slots; Count is 0 unless Action is Balance
	Action      Action
	Algorithm   Algorithm // Random unless Action is Balance
	Affinity    uint32    // seconds without a call for which a caller keeps its backend; 0 = none
	Strict      bool      // a change of this cell has callers and unconnected UDP choose anew
	Selective   bool      // views exist: {cell, group} is asked first
	Gen         uint16    // 10 bits, wraps
}

// CellInfo names a cell for people and for the next start; no program reads it.
type CellInfo struct {
	VIP    string
	Group  string // of a view; "" for a VIP's default cell
	Family uint8  // 4 or 6; 0 = the cell is free
	Of     uint32 // of a view: its default cell
}

// ViewKey selects a cell of its own for one group's calls to a default cell.
type ViewKey struct {
	Cell, Group uint32
}

// Backend is constant while anything names its index.
type Backend struct {
	Addr netip.AddrPort
	Gen  uint32 // grows each time the index is given to another backend; never 0 while valid
	Cell uint32 // default cell of the VIP and family it belongs to
}

// BackendState says who may still use a backend (enum slb_backend_state).
type BackendState uint32

const (
	BackendFree     BackendState = iota
	BackendActive                // may stand in slots
	BackendDraining              // in no slot; unconnected UDP flows that have it keep it
	BackendDown                  // in no slot; UDP flows choose anew
)

// BackendCell is a backend's 8-byte word.
type BackendCell struct {
	State BackendState
	Gen   uint32
}

// Group is one group index. Index 0 is the host: callers that no group covers.
type Group struct {
	Name      string // "" = free
	Translate bool
	Deny      bool // its policy's default, for when the policy cannot be read
	Strict    bool // sockets that no hook sees are refused
	Stale     bool // of a Dump alone: its word says something else and is to be set again
}

// Rule is what a cgroup gets: a group (0 = none: the search goes on upwards)
// and the automaton's node for what is expected below (0 = nothing).
type Rule struct {
	Group uint32
	Node  uint32
	Split bool // a group of its own with Group's rules

	// Counted is set where a split child has counters of its own. Only entries of
	// cgroups may have it: what the kernel maps by itself has none.
	Counted bool
}

// ExpectKey names a directory that may be made below a cgroup with this node.
// Name "" is the node's rule for every name that nothing else matches.
type ExpectKey struct {
	Node uint32
	Name string
}

// PatternKey is the n-th one-star pattern of a node, numbered from 0 without holes.
type PatternKey struct {
	Node    uint32
	Ordinal uint32
}

// Pattern matches names of at least len(Prefix)+len(Suffix) bytes.
type Pattern struct {
	Prefix, Suffix string
	Rule           Rule
}

// Dump is what the maps hold. Everything the writer needs to go on after a
// restart is in it: what no entry names is free.
type Dump struct {
	Frontends    map[FrontendKey]uint32 // index
	FrontendRefs map[uint32]FrontendRef // non-zero words only; Gen outlives the frontend
	Cells        map[uint32]Cell        // Action != None, or a CellInfo
	CellInfos    map[uint32]CellInfo
	Views        map[ViewKey]uint32 // cell index
	Backends     map[uint32]Backend // by index, Gen != 0
	BackendCells map[uint32]BackendCell
	Slots        map[uint32][]uint32 // base of each Balance cell -> its slots
	Groups       map[uint32]Group
	Cgroups      map[uint64]Rule // by cgroup id
	Expect       map[ExpectKey]Rule
	Patterns     map[PatternKey]Pattern

	HostNetns uint64 // cookie of the daemon's network namespace

	PolicyWord  PolicyWord
	Policy      *Policy // nil: there is none, or what the word names is none
	PolicyLines uint32  // that it takes
	PolicySum   uint64  // see Policy.Lines
}

// Limits are the tables' capacities.
type Limits struct {
	Frontends, Cells, Views, Backends, Slots, Groups, Cgroups, Expect, PolicyLines uint32
}
