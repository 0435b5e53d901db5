package api

import "time"

// Backend is one backend of a VIP, or of one group's view of it.
type Backend struct {
	VIP     string    `json:"vip"`
	Group   string    `json:"group,omitempty"` // of a view
	Address string    `json:"address"`
	Unit    string    `json:"unit,omitempty"` // that it is; other people's text
	Weight  uint32    `json:"weight"`
	State   string    `json:"state"`            // what the kernel has: active, draining, down; or pending
	Reason  string    `json:"reason,omitempty"` // why it is not simply active
	Since   time.Time `json:"since,omitzero"`   // of the reason, else of the state; not set: not known
	Order   string    `json:"order,omitempty"`  // an operator's: drain or maint
	Share   float64   `json:"share"`            // of the new connections to the VIP, in its family, for those who have this list
	Live    uint64    `json:"live"`             // open sockets that the VIP sent to it, for whichever group
	Check   *Check    `json:"check,omitempty"`  // null: not checked

	UnitState string    `json:"unit_state,omitempty"` // active, reloading, activating, deactivating, failed, auto-restart
	UnitSince time.Time `json:"unit_since,omitzero"`

	Counters Counters `json:"counters"`
	Origin   string   `json:"origin"`
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
