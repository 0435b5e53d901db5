package api

import "time"

// Picture is what the status page draws, at one moment: who calls what, and
// what becomes of it. Whoever reaches the page sees it, so it has types of its own
// that lack what only the socket's readers are to know: cgroups, units, files, and
// what others said, such as a backend's answer to a check.
type Picture struct {
	At         time.Time      `json:"at"` // of the counters: two pictures make a rate
	State      State          `json:"state"`
	Version    string         `json:"version"`
	Started    time.Time      `json:"started"`
	Loaded     time.Time      `json:"loaded"`   // the configuration
	Attached   bool           `json:"attached"` // false: no call is translated
	Problems   []string       `json:"problems"` // what kind of problem each is
	Notes      int            `json:"notes"`    // how many; slicelb status has them
	Backends   int            `json:"backends"` // of all VIPs, those of MoreVIPs too
	Up         int            `json:"up"`       // of these, that are active
	VIPs       []PictureVIP   `json:"vips"`     // by name
	Groups     []PictureGroup `json:"groups"`
	Calls      []Calls        `json:"calls"`
	MoreVIPs   int            `json:"more_vips"` // that the page has no room for: all well, and not the busiest
	MoreGroups int            `json:"more_groups"`
}

// PictureVIP is what a page shows of a VIP.
type PictureVIP struct {
	Name      string           `json:"name"`
	Frontends []string         `json:"frontends"`
	Backends  []PictureBackend `json:"backends"`
	For       []PictureView    `json:"for"`
	Clients   []string         `json:"clients"` // null: every process on the host
	Except    []string         `json:"except"`
	WhenDown  string           `json:"when_down"`
	Counters  Counters         `json:"counters"`
}

// PictureView is what a page shows of a group's own backends.
type PictureView struct {
	Group    string           `json:"group"`
	Backends []PictureBackend `json:"backends"`
}

// PictureBackend is what a page shows of a backend.
type PictureBackend struct {
	VIP      string        `json:"vip"`
	Group    string        `json:"group,omitempty"` // of a view
	Address  string        `json:"address"`
	Weight   uint32        `json:"weight"`
	State    string        `json:"state"`            // what the kernel has: active, draining, down; or pending
	Reason   string        `json:"reason,omitempty"` // what keeps it out
	Since    time.Time     `json:"since,omitzero"`
	Share    float64       `json:"share"` // of the new connections
	Live     uint64        `json:"live"`  // open sockets
	Check    *PictureCheck `json:"check,omitempty"`
	Counters Counters      `json:"counters"`
}

// PictureCheck is what a page shows of a backend's checks.
type PictureCheck struct {
	Type  string        `json:"type"`  // tcp, http, https
	State string        `json:"state"` // up, down, unchecked
	Took  time.Duration `json:"took_ns"`
	Count uint64        `json:"count"`
}

// PictureGroup is what a page shows of a group.
type PictureGroup struct {
	Name      string `json:"name"`
	Split     bool   `json:"split"`
	Translate bool   `json:"translate"`
	Slices    int    `json:"slices"`  // configured
	Pending   int    `json:"pending"` // of those, that do not exist
	Anchors   int    `json:"anchors"` // that exist
	Members   int    `json:"members"`
}

// Calls is what one group's calls to one VIP came to, or to all that is none. Split
// children count with the group that they are of.
type Calls struct {
	Group    string   `json:"group"` // "host" for callers in no group
	VIP      string   `json:"vip"`   // "" = to networks that rules name
	Counters Counters `json:"counters"`
}
