package api

import (
	"context"
	"time"
)

// Top is what was counted until one moment: the differences of two are rates.
type Top struct {
	At       time.Time    `json:"at"`
	VIPs     []TopVIP     `json:"vips"`
	Groups   []TopGroup   `json:"groups"` // one for each VIP that it called
	Backends []TopBackend `json:"backends"`
}

// TopVIP is one VIP.
type TopVIP struct {
	Name     string      `json:"name"`
	Up       int         `json:"up"` // backends that take connections
	Backends int         `json:"backends"`
	Live     uint64      `json:"live"` // open sockets that it sent to its backends
	Counters Counters    `json:"counters"`
	Took     []TookCount `json:"took"` // TCP connects; counted while somebody watches or asks for this
}

// TookCount is how many connects took less than Below, and not less than the one
// before. Below 0 is the last: however long. Counts wrap at 2^32.
type TookCount struct {
	Below time.Duration `json:"below_ns"`
	Count uint32        `json:"count"`
}

// TopGroup is what one group got of one VIP.
type TopGroup struct {
	Group    string   `json:"group"`
	VIP      string   `json:"vip"`
	Counters Counters `json:"counters"`
}

// TopBackend is one backend.
type TopBackend struct {
	VIP      string   `json:"vip"`
	Group    string   `json:"group,omitempty"` // of a view
	Address  string   `json:"address"`
	State    string   `json:"state"`
	Share    float64  `json:"share"`
	Live     uint64   `json:"live"`
	Counters Counters `json:"counters"`
}

// Top asks for what was counted, and has connects timed for a while.
func (c *Client) Top(ctx context.Context) (*Top, error) { return get[Top](ctx, c, "/top") }
