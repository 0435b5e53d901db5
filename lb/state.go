package lb

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// HostGroup is the group of every caller that no configured group covers. Its
// index is 0.
const HostGroup = "host"

// Member is a cgroup that exists. Match is what the anchor tree says of it,
// Group the group it is effectively in: its own or the nearest ancestor's; a
// split child's is "jobs/<basename>"; "" is none.
type Member struct {
	ID    uint64
	Path  string        // below the cgroup root; "" where it is not known
	Match *anchor.Match // may be shared with others; nil is that of no pattern
	Group string

	// Foreign is set where others than root can make such directories.
	Foreign bool

	// Closed is set where nobody could look into it. What the kernel has mapped
	// below it is in no Membership, and stays.
	Closed bool
}

// unmatched is what the anchor tree says of a directory that it does not know.
var unmatched anchor.Match

func (m *Member) match() *anchor.Match {
	if m.Match == nil {
		return &unmatched
	}
	return m.Match
}

// Membership is every directory that the anchor tree knows, and the members.
type Membership struct {
	Cgroups []Member

	// Complete says that every source has delivered its first full state.
	// Until then no cgroup's entry is deleted.
	Complete bool

	// Walked is when the last walk over the whole tree that this is based on
	// began. An entry that the kernel made by itself, and that no Membership has
	// named, is deleted only when it was seen before such a walk began: a
	// younger one is a directory that the walk may have passed by too early.
	// Zero: such entries stay.
	Walked time.Time

	// Self is the cgroup of the daemon alone, whose calls are never translated:
	// it goes to backends' own addresses, and one of them may be a frontend too.
	// 0: there is none, or it is shared with others.
	Self uint64
}

// DaemonGroup is the group of the daemon's own cgroup. No configuration can name
// it.
const DaemonGroup = "@daemon"

// Endpoint names a backend of a VIP.
type Endpoint struct {
	VIP  string
	Addr netip.AddrPort
}

// Verdict is what was decided about a backend while the daemon runs.
type Verdict struct {
	Drain bool // an operator takes it out: no new flows, existing ones stay
	Down  bool // it is out, whatever becomes of the VIP: flows choose anew

	// Failing is out by its health checks, and so only as far as the VIP's
	// panic_threshold lets it be; those that have failed for longest go first.
	Failing bool
	Since   time.Time // of Failing

	// Tenths of its weight, while it starts slowly; 0 is all of it.
	Tenths uint8
}

// Runtime is what is decided outside the configuration. A State keeps what it was
// compiled with: nothing may change it afterwards.
type Runtime struct {
	Verdicts map[Endpoint]Verdict
}

// State is what the maps should hold, by name: indexes are Diff's to choose.
// It is immutable.
type State struct {
	Groups  []Group  // by name, without the host
	VIPs    []*VIP   // by name, then family
	Cgroups []Cgroup // by id
	Edges   []Edge   // by node, then key
	Policy  *Policy  // nil: everything is allowed

	Closed   []Cgroup  // see Member; what is in one is none of Cgroups
	Complete bool      // see Membership
	Walked   time.Time // see Membership

	need need
	left int // cgroups that are left out, for want of room

	// What it was compiled from, for WithVerdicts.
	cfg      *config.Config
	verdicts map[Endpoint]Verdict
}

// Has reports whether e is a backend.
func (s *State) Has(e Endpoint) bool {
	first, _ := slices.BinarySearchFunc(s.VIPs, e.VIP, func(v *VIP, name string) int { return strings.Compare(v.Name, name) })
	for _, v := range s.VIPs[first:] {
		if v.Name != e.VIP {
			break
		}
		if _, ok := slices.BinarySearchFunc(v.Backends, e.Addr, func(b Backend, a netip.AddrPort) int { return b.Addr.Compare(a) }); ok {
			return true
		}
	}
	return false
}

// Verdict is what e was judged as.
func (s *State) Verdict(e Endpoint) Verdict { return s.verdicts[e] }

// Group is a configured group.
type Group struct {
	Name      string
	Translate bool
	Deny      bool // its policy's default
	Strict    bool
	Children  uint32 // so many of its split children have counters of their own
}

// VIP is one VIP in one family: one default cell and what hangs on it.
type VIP struct {
	Name      string
	Family    uint8             // 4 or 6
	Algorithm bpf.Algorithm     // of all pools
	Affinity  uint32            // seconds; 0 = none
	Frontends []bpf.FrontendKey // sorted
	Backends  []Backend         // by address; those of views too
	Pools     []Pool            // distinct; outcomes name them by position
	Default   Outcome
	Views     []View // by group

	tables sum // of everything but Frontends
	whole  sum
}

// slotCount is how many slots its pools take.
func (v *VIP) slotCount() uint32 {
	var n uint32
	for _, p := range v.Pools {
		n += p.Size()
	}
	return n
}

// Backend is one backend of a VIP.
type Backend struct {
	Addr  netip.AddrPort
	State bpf.BackendState
}

// Pool is a set of slots: so many for each backend, by its position in
// VIP.Backends, rising.
type Pool []Share

// Share is one backend's slots in a pool.
type Share struct {
	Backend uint32
	Slots   uint32 // at least 1
	Weight  uint32 // with Maglev: what Slots was rounded from, in lowest terms
}

// Size is the number of slots.
func (p Pool) Size() uint32 {
	var n uint32
	for _, s := range p {
		n += s.Slots
	}
	return n
}

// Outcome is what a call gets. Pool is a position in VIP.Pools where Action is
// bpf.Balance, else -1.
type Outcome struct {
	Action bpf.Action
	Pool   int
}

// View is what one group gets instead of the default.
type View struct {
	Group string
	Outcome
}

// Rule is a cgroup's word by name. Group "" is none.
type Rule struct {
	Group   string
	Node    uint32
	Split   bool
	Counted bool // a split child that has counters of its own
}

// Cgroup is an entry of cgroups.
type Cgroup struct {
	ID    uint64
	Path  string // see Member
	Rule  Rule
	Place Place
}

// Edge is an entry of expect, or of expect_patterns where Pattern is set.
type Edge struct {
	Node    uint32
	Name    string // "" is every other name
	Pattern bool
	Ordinal uint32 // of a pattern
	Prefix  string
	Suffix  string
	Rule    Rule
}

// need counts what a state takes in each table.
type need struct {
	frontends, cells, views, backends, groups, slots, cgroups, expect, patterns, policy uint64
}
