package api

import "time"

// Picture is what the status page draws, at one moment: who calls what, and
// what becomes of it. It says nothing that only the socket's readers are to
// know: no cgroups, no units, no text of a configuration file.
type Picture struct {
	At         time.Time `json:"at"` // of the counters: two pictures make a rate
	State      State     `json:"state"`
	Version    string    `json:"version"`
	Started    time.Time `json:"started"`
	Loaded     time.Time `json:"loaded"`   // the configuration
	Attached   bool      `json:"attached"` // false: no call is translated
	Problems   []string  `json:"problems"` // the first line of each
	Notes      int       `json:"notes"`    // how many; slicelb status has them
	VIPs       []VIP     `json:"vips"`     // by name
	Groups     []Group   `json:"groups"`
	Calls      []Calls   `json:"calls"`
	MoreVIPs   int       `json:"more_vips"` // that the page has no room for
	MoreGroups int       `json:"more_groups"`
}

// Calls is what one group's calls to one VIP came to, or to all that is none. Split
// children count with the group that they are of.
type Calls struct {
	Group    string   `json:"group"` // "host" for callers in no group
	VIP      string   `json:"vip"`   // "" = to networks that rules name
	Counters Counters `json:"counters"`
}
