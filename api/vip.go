package api

import (
	"context"
	"net/url"
)

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
	Affinity  string    `json:"affinity"` // "0s" = none
	Clients   []string  `json:"clients"`  // null: every process on the host
	Except    []string  `json:"except"`
	Hidden    string    `json:"hidden"`
	WhenDown  string    `json:"when_down"`
	Terminate string    `json:"terminate"`

	DrainTimeout       string `json:"drain_timeout"` // "0s" = as long as it takes
	RejectUnknownPorts bool   `json:"reject_unknown_ports"`

	Health   string   `json:"health,omitempty"` // how backends are checked; "" = not at all
	For      []View   `json:"for"`
	Up       int      `json:"up"` // backends that take new connections
	Families []Family `json:"families,omitempty"`
	Live     uint64   `json:"live"` // open sockets that it sent to its backends
	Counters Counters `json:"counters"`
	Origin   string   `json:"origin"`
}

// All are a VIP's backends, those of its views too.
func (v *VIP) All() []Backend {
	all := v.Backends[:len(v.Backends):len(v.Backends)]
	for _, view := range v.For {
		all = append(all, view.Backends...)
	}
	return all
}

// Family is an address family of a VIP that backends, or units, are configured for.
type Family struct {
	Family int `json:"family"` // 4 or 6
	Up     int `json:"up"`     // backends of it that take new connections; 0: callers get when_down
}

// View is what one group gets instead of a VIP's own backends.
type View struct {
	Group    string    `json:"group"`
	Backends []Backend `json:"backends"`
	WhenDown string    `json:"when_down"`
	Counters Counters  `json:"counters"`
}

// Unit is a name of units, each of which is a backend while it runs.
type Unit struct {
	Unit    string `json:"unit"`            // "*" stands for anything
	Group   string `json:"group,omitempty"` // of a view
	Address string `json:"address"`         // %i is the instance
	Weight  uint32 `json:"weight"`
	Running int    `json:"running"` // that are backends by this name, and not inactive
	Origin  string `json:"origin"`
}

// VIP asks for one VIP; NotFound where there is none of that name.
func (c *Client) VIP(ctx context.Context, name string) (*VIP, error) {
	return get[VIP](ctx, c, "/vips/"+url.PathEscape(name))
}
