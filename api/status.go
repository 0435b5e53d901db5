package api

import (
	"context"
	"time"
)

// State is the daemon's own verdict over itself.
type State string

const (
	OK       State = "ok"
	Degraded State = "degraded" // serving, with at least one problem
)

// Status is the daemon on one screen.
type Status struct {
	State     State         `json:"state"`
	Version   string        `json:"version"`
	PID       int           `json:"pid"`
	Started   time.Time     `json:"started"`
	Config    Config        `json:"config"`
	HTTP      string        `json:"http"` // where the status page is; "" = nowhere
	DataPlane DataPlane     `json:"data_plane"`
	Tracking  Tracking      `json:"tracking"`
	VIPs      []VIP         `json:"vips"`
	Groups    []Group       `json:"groups"`
	Policy    PolicySummary `json:"policy"`
	Problems  []string      `json:"problems"` // why State is degraded
	Notes     []string      `json:"notes"`    // worth knowing, nothing is wrong
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
	Attached   bool     `json:"attached"` // false before a VIP, a policy or a strict group is configured; true when the last has gone, too
	CgroupRoot string   `json:"cgroup_root"`
	Namespaced bool     `json:"namespaced"` // the root is not the hierarchy's own
	Adopted    bool     `json:"adopted"`    // this process took it over from the one before
	Before     bool     `json:"before"`     // what the process before left serves on: this one has not attached its own yet
	Unread     bool     `json:"unread"`     // what is in the kernel cannot be read: VIPs, groups and what it counts are left out
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

// Status asks for the daemon on one screen, with all VIPs and groups.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return getWithin[Status](ctx, statusTimeout, c, "/status")
}

// Listed asks for the same for its VIPs and groups: it is an error that they are not
// known.
func (c *Client) Listed(ctx context.Context) (*Status, error) {
	s, err := c.Status(ctx)
	if err == nil && s.DataPlane.Unread {
		return nil, &Error{Code: Busy, Text: "the daemon cannot read what is in the kernel", Hint: "slicelb status says why"}
	}
	return s, err
}
