// Package config turns TOML into one validated, immutable Config. Only this
// package knows TOML; nothing downstream validates again.
package config

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Config is everything an operator said, merged from slicelb.toml and its
// drop-ins. Slices are in load order unless a field says otherwise.
type Config struct {
	Daemon Daemon
	Groups []Group // load order, which is also precedence
	VIPs   []VIP   // by name
	Policy Policy
	Files  []string // that were read, in load order
	Main   Main
}

// Main is slicelb.toml, or the file that was named, as Load found it.
type Main struct {
	Path    string // "" of what Parse returned
	Missing bool
	Blank   bool // there is nothing in it but white space
}

// Daemon holds [daemon].
type Daemon struct {
	LogLevel string         // debug, info, warn, error
	HTTP     netip.AddrPort // of the page and the metrics; the zero value = none
	Slots    uint32         // capacity of the slot table
	UDPFlows uint32         // capacity of each table of unconnected UDP; 0 = by the number of CPUs
	Origin   Position
}

// Position is where a value stands. Line and Column count from 1, in runes; a
// Line of 0 means the file as a whole.
type Position struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

func (p Position) String() string {
	if p.Line == 0 {
		return printable(p.File)
	}
	return fmt.Sprintf("%s:%d:%d", printable(p.File), p.Line, p.Column)
}

// Group is [group.NAME]: slices that are one identity.
type Group struct {
	Name      string
	Anchors   []Anchor
	Split     string // path.Match pattern of basenames, "" = not split
	Translate bool   // false: its sockets reach VIPs untranslated

	// SplitMetrics is how many of its split children have metrics of their own.
	SplitMetrics uint32

	// Policy is Allow or Deny: what the group gets where no rule says anything;
	// "" = what [policy] says.
	Policy RuleAction
	Strict bool // sockets that no hook sees are refused

	Origin Position
}

// Anchor is one entry of slices.
type Anchor struct {
	Text    string // as written: "web.slice" or "/a/b*.slice"
	Pattern string // absolute, below the cgroup root: "/web.slice"
	Origin  Position
}

// Proto is a frontend's transport protocol, by IP protocol number.
type Proto uint8

const (
	TCP Proto = 6
	UDP Proto = 17
)

func (p Proto) String() string {
	if p == UDP {
		return "udp"
	}
	return "tcp"
}

// Frontend is one address:port/protocol of a VIP. Addr is never v4-mapped.
type Frontend struct {
	Addr   netip.AddrPort
	Proto  Proto
	Origin Position
}

// String is the form of the configuration file: "/udp" follows the port, tcp is silent.
func (f Frontend) String() string {
	if f.Proto == UDP {
		return f.Addr.String() + "/udp"
	}
	return f.Addr.String()
}

// Backend is one [[vip.NAME.backend]]. Weight 0 takes no new connections.
type Backend struct {
	Addr   netip.AddrPort // never v4-mapped
	Weight uint32
	Unit   string // the unit that it is; "" = it stands in the files
	Origin Position
}

// WhenDown says what a call gets when its family has no usable backend.
type WhenDown string

const (
	DownReject WhenDown = "reject"  // EHOSTUNREACH
	DownUseAll WhenDown = "use-all" // every backend that is configured
	DownPass   WhenDown = "pass"    // untouched
)

// Hidden says what a group that is not among a VIP's clients gets.
type Hidden string

const (
	HiddenPass   Hidden = "pass"   // untouched
	HiddenReject Hidden = "reject" // EHOSTUNREACH
)

// Terminate says which sockets are closed when the backend that they are
// connected to, through the VIP, is gone or down.
type Terminate string

const (
	TerminateUDP  Terminate = "udp" // connected UDP sockets
	TerminateAll  Terminate = "all" // TCP connections too
	TerminateNone Terminate = "none"
)

// VIP is [vip.NAME].
type VIP struct {
	Name      string
	Frontends []Frontend
	Backends  []Backend
	Units     []UnitBackend // backends that come and go with units
	Algorithm Algorithm     // of views too
	Affinity  time.Duration // whole seconds without a call for which a caller keeps its backend; 0 = none
	Clients   []string      // nil = every process on the host; group names, or "host": who is in none
	Except    []string
	Hidden    Hidden
	WhenDown  WhenDown
	Terminate Terminate
	Health    *Health // nil = not checked

	// RejectUnknownPorts: a port of one of its addresses that no VIP's frontend
	// names is refused, with ECONNREFUSED, to those who see the VIP.
	RejectUnknownPorts bool

	// DrainTimeout is how long connections of a drained backend are waited for;
	// 0 = until they end.
	DrainTimeout time.Duration

	For    []View // by group name
	Origin Position
}

// Own reports whether there may be callers that get the VIP's own backends: where each
// of its clients has a "for", there are none.
func (v *VIP) Own() bool {
	return v.Clients == nil || slices.ContainsFunc(v.Clients, func(name string) bool {
		return !slices.ContainsFunc(v.For, func(view View) bool { return view.Group == name })
	})
}

// HasUnits reports whether backends of the VIP, or of a view, come and go with units.
func (v *VIP) HasUnits() bool {
	return len(v.Units) > 0 || slices.ContainsFunc(v.For, func(view View) bool { return len(view.Units) > 0 })
}

// View is [vip.NAME.for.GROUP]: what one group gets instead.
type View struct {
	Group    string
	Backends []Backend
	Units    []UnitBackend
	WhenDown WhenDown // the VIP's where it is not said
	Origin   Position
}

// Defaults of values that are not said.
const (
	DefaultSlots    = 2 << 20
	DefaultUDPFlows = 0
	DefaultLogLevel = "info"
	DefaultWeight   = 1

	DefaultDrainTimeout time.Duration = 0
)

// MaxPerVIP bounds the frontends of a VIP, and the backends of a VIP and of each of
// its views.
const MaxPerVIP = 4096
