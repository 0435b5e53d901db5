package api

import (
	"context"
	"time"
)

// Policy is the rules that are in force, and what they came to.
type Policy struct {
	Default string          `json:"default"` // allow or deny
	Groups  []PolicyDefault `json:"groups"`  // whose default is another
	Rules   []Rule          `json:"rules"`   // in their order: the first that matches wins
	Calls   []Calls         `json:"calls"`   // by group and VIP, or networks
	Seen    []Seen          `json:"seen"`    // what rules with the action audit let through
	Lost    uint64          `json:"lost"`    // of that, what found no room in the kernel's table
}

// PolicyDefault is what a group gets where no rule says anything.
type PolicyDefault struct {
	Group  string `json:"group"`
	Action string `json:"action"`
}

// Rule is one rule. Hits are the calls that it has decided since this policy is in
// force; a rule that does not decide leaves nothing over from those before it.
type Rule struct {
	From    []string `json:"from"`
	To      []string `json:"to"`
	Action  string   `json:"action"` // allow, deny, audit
	Hits    uint64   `json:"hits"`
	Decides bool     `json:"decides"`
	Origin  string   `json:"origin"`
}

// Seen is an address that a group called, let through by an audit.
type Seen struct {
	Group   string        `json:"group"`
	Address string        `json:"address"` // address:port
	Proto   string        `json:"protocol"`
	Count   uint64        `json:"count"`
	Ago     time.Duration `json:"ago_ns"` // since the newest
}

// PolicySummary is the policy in a line.
type PolicySummary struct {
	Default string `json:"default"`
	Rules   int    `json:"rules"`
	Denied  uint64 `json:"denied"` // calls
}

// Denied counts a group's calls that policy denied.
type Denied struct {
	VIP   string `json:"vip"` // "" = to networks that rules name
	Calls uint64 `json:"calls"`
}

// Policy asks for the rules and what they came to.
func (c *Client) Policy(ctx context.Context) (*Policy, error) {
	return get[Policy](ctx, c, "/policy")
}
