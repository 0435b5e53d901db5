// Package api is how a running daemon is asked: HTTP with JSON on a Unix
// socket. It owns the types that cross the socket, the server's limits and who
// may ask for what, and the client. It decides nothing about load balancing:
// the daemon answers through the Daemon interface, and the command line turns
// the answers into tables.
//
// Whoever can open the socket may read; the socket's mode and group say who
// that is. What changes the daemon is for uid 0 and the daemon's own user, by
// the peer credentials that the kernel keeps for each connection.
package api

import (
	"time"
)

// Prefix is the path that every endpoint stands below. A change that an older
// client would misread gets a new one.
const Prefix = "/v1"

// DefaultSocket is where the daemon listens unless it is told otherwise.
const DefaultSocket = "/run/slicelb/api.sock"

// State is the daemon's own verdict over itself.
type State string

const (
	OK       State = "ok"
	Degraded State = "degraded" // serving, with at least one problem
)

// Status is the daemon on one screen.
type Status struct {
	State     State     `json:"state"`
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	Started   time.Time `json:"started"`
	Config    Config    `json:"config"`
	HTTP      string    `json:"http"` // where the status page is; "" = nowhere
	DataPlane DataPlane `json:"data_plane"`
	Tracking  Tracking  `json:"tracking"`
	VIPs      []VIP     `json:"vips"`
	Groups    []Group   `json:"groups"`
	Policy    Summary   `json:"policy"`
	Problems  []string  `json:"problems"` // why State is degraded
	Notes     []string  `json:"notes"`    // worth knowing, nothing is wrong
}

// Config says which configuration runs.
type Config struct {
	Path      string    `json:"path"`
	Files     []string  `json:"files"`
	Loaded    time.Time `json:"loaded"`
	LastGood  bool      `json:"last_good"` // restored from the descriptor store: the files did not load
	Failed    time.Time `json:"failed,omitzero"`
	LastError string    `json:"last_error,omitempty"` // of the newest reload, when it failed
}

// DataPlane says what is in the kernel and who keeps it there.
type DataPlane struct {
	Attached   bool     `json:"attached"` // false while there is no VIP
	CgroupRoot string   `json:"cgroup_root"`
	Namespaced bool     `json:"namespaced"` // the root is not the hierarchy's own
	Adopted    bool     `json:"adopted"`    // this process took it over from the one before
	Hooks      []string `json:"hooks"`
	Missing    []string `json:"missing"` // kernel features that are not there
	Held       Held     `json:"held"`
	Slots      Usage    `json:"slots"`
	Writes     uint64   `json:"writes"` // to the maps since the start
	// Events counts what went wrong on the way of a call, by name.
	Events  map[string]uint64 `json:"events"`
	Sockets Sockets           `json:"sockets"`
}

// Sockets are those that were connected to a backend that is gone, and that their
// VIP wants closed.
type Sockets struct {
	Closed uint64 `json:"closed"` // since the start
	Stuck  int    `json:"stuck"`  // still there: in network namespaces that the daemon may not enter
}

// Held says whether the data plane outlives the process.
type Held struct {
	Store  bool   `json:"store"`  // systemd holds every descriptor
	Count  int    `json:"count"`  // descriptors in the store
	Want   int    `json:"want"`   // descriptors that belong there
	Reason string `json:"reason"` // why Store is false
}

// Usage is a bounded table's fill.
type Usage struct {
	Used     uint64 `json:"used"`
	Capacity uint64 `json:"capacity"`
}

// Tracking says how cgroups are followed.
type Tracking struct {
	Mode     string   `json:"mode"` // "bus" or "cgroupfs-only"
	Complete bool     `json:"complete"`
	Cause    string   `json:"cause,omitempty"`
	Cgroups  int      `json:"cgroups"` // with a group: anchors, split children, members
	Anchors  int      `json:"anchors"`
	Members  int      `json:"members"`
	Pending  []string `json:"pending"` // configured slices that do not exist
	Lost     []string `json:"lost"`    // patterns that another group's decided over

	Resync  Resync            `json:"resync"`
	Sources map[string]uint64 `json:"sources"` // counts by what they came from
	Mapped  Latency           `json:"mapped"`  // from the kernel's event to the map
}

// Resync is the newest look at every directory.
type Resync struct {
	At         time.Time     `json:"at,omitzero"`
	Cause      string        `json:"cause,omitempty"`
	Difference int           `json:"difference"` // directories that came or went
	Took       time.Duration `json:"took_ns"`
	Count      uint64        `json:"count"`
}

// Latency is how long something took, each time.
type Latency struct {
	Count   uint64        `json:"count"`
	Last    time.Duration `json:"last_ns"`
	Most    time.Duration `json:"most_ns"`
	Sum     time.Duration `json:"sum_ns"`
	Buckets []Bucket      `json:"buckets"`
}

// Bucket counts what took at most so long, and longer than the one before.
type Bucket struct {
	Most  time.Duration `json:"most_ns"` // 0 in the last: however long
	Count uint64        `json:"count"`
}

// Within is the part of all that took at most d, the bound of a bucket; 1 where
// there was nothing.
func (l Latency) Within(d time.Duration) float64 {
	if l.Count == 0 {
		return 1
	}
	var n uint64
	for _, b := range l.Buckets {
		if b.Most != 0 && b.Most <= d {
			n += b.Count
		}
	}
	return float64(n) / float64(l.Count)
}

// Counters are what calls to a VIP got, since the VIP exists.
type Counters struct {
	Connects uint64 `json:"connects"` // connect() calls that were translated
	Flows    uint64 `json:"flows"`    // backends chosen for unconnected UDP
	Passed   uint64 `json:"passed"`   // left untouched
	Rejected uint64 `json:"rejected"` // EHOSTUNREACH
	Denied   uint64 `json:"denied"`   // EPERM, by policy
}

// VIP is one VIP as it runs.
type VIP struct {
	Name      string    `json:"name"`
	Frontends []string  `json:"frontends"`
	Backends  []Backend `json:"backends"`
	Units     []Unit    `json:"units,omitempty"` // whose running ones are backends, those of For too
	Algorithm string    `json:"algorithm"`
	Affinity  string    `json:"affinity,omitempty"` // "" = none
	Clients   []string  `json:"clients"`            // null: every process on the host
	Except    []string  `json:"except"`
	Hidden    string    `json:"hidden"`
	WhenDown  string    `json:"when_down"`
	Terminate string    `json:"terminate"`
	Health    string    `json:"health,omitempty"` // how backends are checked; "" = not at all
	For       []View    `json:"for"`
	Up        int       `json:"up"`   // backends that take new connections
	Live      uint64    `json:"live"` // open sockets that it sent to its backends
	Counters  Counters  `json:"counters"`
	Origin    string    `json:"origin"`
}

// All are a VIP's backends, those of its views too.
func (v *VIP) All() []Backend {
	all := v.Backends[:len(v.Backends):len(v.Backends)]
	for _, view := range v.For {
		all = append(all, view.Backends...)
	}
	return all
}

// View is what one group gets instead of a VIP's own backends.
type View struct {
	Group    string    `json:"group"`
	Backends []Backend `json:"backends"`
	WhenDown string    `json:"when_down"`
	Counters Counters  `json:"counters"`
}

// Backend is one backend of a VIP, or of one group's view of it.
type Backend struct {
	VIP     string    `json:"vip"`
	Group   string    `json:"group,omitempty"` // of a view
	Address string    `json:"address"`
	Unit    string    `json:"unit,omitempty"` // that it is; other people's text
	Weight  uint32    `json:"weight"`
	State   string    `json:"state"`            // what the kernel has: active, draining, down; or pending
	Reason  string    `json:"reason,omitempty"` // why it is not simply active
	Since   time.Time `json:"since,omitzero"`   // of the reason
	Order   string    `json:"order,omitempty"`  // an operator's: drain or maint
	Share   float64   `json:"share"`            // of the new connections to the VIP, in its family, for those who have this list
	Live    uint64    `json:"live"`             // open sockets that the VIP sent to it, for whichever group
	Check   *Check    `json:"check,omitempty"`  // null: not checked

	UnitState string    `json:"unit_state,omitempty"` // active, reloading, activating, deactivating, failed
	UnitSince time.Time `json:"unit_since,omitzero"`

	Counters Counters `json:"counters"`
	Origin   string   `json:"origin"`
}

// Unit is a name of units, each of which is a backend while it runs.
type Unit struct {
	Unit    string `json:"unit"`            // "*" stands for anything
	Group   string `json:"group,omitempty"` // of a view
	Address string `json:"address"`         // %i is the instance
	Weight  uint32 `json:"weight"`
	Running int    `json:"running"` // of this name, and not inactive
	Origin  string `json:"origin"`
}

// Group is one configured group, with the split children it has.
type Group struct {
	Name      string   `json:"name"`
	Slices    []string `json:"slices"`
	Split     string   `json:"split,omitempty"`
	Translate bool     `json:"translate"`
	Policy    string   `json:"policy"` // its default: allow or deny
	Strict    bool     `json:"strict"`
	Denied    []Denied `json:"denied,omitempty"`
	Cgroups   []Cgroup `json:"cgroups"` // anchors and members; null in listings
	Anchors   int      `json:"anchors"` // that exist
	Members   int      `json:"members"`
	Pending   []string `json:"pending"`
	Origin    string   `json:"origin"`
}

// Cgroup is a directory that has a group. Path and Unit are other people's
// text: quote them.
type Cgroup struct {
	ID     uint64 `json:"id"`
	Path   string `json:"path"` // below the cgroup root
	Group  string `json:"group"`
	Anchor bool   `json:"anchor"`
	Split  bool   `json:"split"`
	Unit   string `json:"unit,omitempty"`
}

// RunningConfig is what runs, as one merged file.
type RunningConfig struct {
	Path     string   `json:"path"`
	Files    []string `json:"files"`
	TOML     string   `json:"toml"`
	LastGood bool     `json:"last_good"`
}

// Reloaded is the answer to a reload that took effect.
type Reloaded struct {
	Writes   int           `json:"writes"`
	Took     time.Duration `json:"took_ns"`
	VIPs     int           `json:"vips"`
	Groups   int           `json:"groups"`
	Warnings []string      `json:"warnings"`
}

// Question is what explain asks: what a call from a cgroup to an address gets.
type Question struct {
	Address string `json:"address"` // address:port, or address:port/udp; "" = every VIP
	Cgroup  string `json:"cgroup"`  // path below the cgroup root

	// Process says that Cgroup is what /proc/PID/cgroup had: the directory may
	// be gone, and " (deleted)" may stand behind its path.
	Process bool `json:"process"`
}

// Explanation is the answer, from what the kernel's maps hold.
type Explanation struct {
	Address   string     `json:"address"`
	Cgroup    string     `json:"cgroup"`
	Gone      bool       `json:"gone"` // the caller's cgroup does not exist any more
	Ancestors []Ancestor `json:"ancestors"`
	Group     string     `json:"group"`      // "host" where no group covers the caller
	Decided   string     `json:"decided_by"` // the cgroup whose entry names the group
	Pattern   string     `json:"pattern,omitempty"`
	VIPs      []Verdict  `json:"vips,omitempty"` // where no address was asked for

	VIP      string    `json:"vip,omitempty"`  // "" = the address is no frontend
	Down     bool      `json:"down,omitempty"` // no backend takes connections
	Action   string    `json:"action"`         // balance, pass, reject, deny
	Reason   string    `json:"reason"`
	Rule     int       `json:"rule,omitempty"`   // of the policy, that decided, from 1
	Origin   string    `json:"origin,omitempty"` // where it stands
	View     string    `json:"view,omitempty"`   // the group whose view decides
	Backends []Backend `json:"backends"`
	Steps    []Step    `json:"steps"`
}

// Ancestor is a cgroup on the way from a caller's up to the root.
type Ancestor struct {
	Path    string `json:"path"`
	ID      uint64 `json:"id"`             // 0 = it is gone
	Kind    string `json:"kind,omitempty"` // anchor, split, member, way, new (not looked at yet); "" = not mapped
	Group   string `json:"group,omitempty"`
	Unit    string `json:"unit,omitempty"`
	Decides bool   `json:"decides"`
}

// Verdict is what a caller gets of one frontend.
type Verdict struct {
	VIP     string `json:"vip"`
	Address string `json:"address"`
	Action  string `json:"action"`
	Reason  string `json:"reason"`
}

// Step is one look-up on the way to an answer.
type Step struct {
	Look  string `json:"look"`
	Found string `json:"found"`
}

// Dump is the text of what the kernel's maps hold, one entry a line, sorted.
type Dump struct {
	Lines []string `json:"lines"`
}

// What a BackendChange may say.
const (
	OrderDrain = "drain" // no new connections
	OrderMaint = "maint" // as if it were down
	OrderReady = "ready" // neither
)

// BackendChange is an operator's wish for one backend of one VIP, or for every
// backend that a unit is.
type BackendChange struct {
	Unit    string // "" = VIP and Address say which
	VIP     string
	Address string
	State   string // OrderDrain, OrderMaint or OrderReady
	UID     uint32 // of the peer who asks
}

// BackendChanged is what came of it, when the kernel has it.
type BackendChanged struct {
	Before    string          `json:"before"`   // the state that it had; of several, the first's
	Backends  []BackendBefore `json:"backends"` // that it was about; none: the unit is no backend now
	Writes    int             `json:"writes"`
	Forgotten string          `json:"forgotten,omitempty"` // why a restart of the daemon would not know of it
}

// Live is how many sockets are open that VIPs sent to backends: TCP ones, and UDP
// ones that are connected.
type Live struct {
	Backends []BackendLive `json:"backends"`
}

// BackendLive is one backend's.
type BackendLive struct {
	VIP     string `json:"vip"`
	Address string `json:"address"`
	Live    uint64 `json:"live"`
}

// Total is the sum over the backends.
func (l *Live) Total() uint64 {
	var n uint64
	for _, b := range l.Backends {
		n += b.Live
	}
	return n
}

// BackendBefore is a backend and the state that it had.
type BackendBefore struct {
	VIP     string `json:"vip"`
	Address string `json:"address"`
	Before  string `json:"before"`
}

// Check is the newest health check of a backend.
type Check struct {
	Type  string        `json:"type"`  // tcp, http, https
	State string        `json:"state"` // up, down, unchecked: by the checks alone
	Since time.Time     `json:"since,omitzero"`
	Last  time.Time     `json:"last,omitzero"`
	Took  time.Duration `json:"took_ns"`
	Count uint64        `json:"count"` // that have ended since the daemon began
	Run   int           `json:"run"`   // so many with the newest one's outcome in a row
	Error string        `json:"error,omitempty"`
}
