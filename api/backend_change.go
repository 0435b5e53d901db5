package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

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

	// Wait is how long the last backend of a VIP may wait for another that is about to
	// come, and a first check be waited for; 0: as long as the daemon thinks right.
	Wait  time.Duration
	Force bool // also where a VIP is left with nothing
}

// BackendChanged is what came of it, when the kernel has it.
type BackendChanged struct {
	Before    string          `json:"before"`   // the state that it had; of several, the first's
	Backends  []BackendBefore `json:"backends"` // that it was about; none: the unit is no backend now
	Writes    int             `json:"writes"`
	Forgotten string          `json:"forgotten,omitempty"` // why a restart of the daemon would not know of it
}

// BackendBefore is a backend and the state that it had.
type BackendBefore struct {
	VIP     string `json:"vip"`
	Address string `json:"address"`
	Before  string `json:"before"`
	Down    string `json:"down,omitempty"` // why it takes no connections although it is ready
}

// SetBackend drains a backend (drain), takes it out (maint), or takes both back
// (ready), and returns when the kernel has it. The daemon refuses, as a Conflict, to take
// out the last backend of a VIP while another should work and does not, but
// for a unit that stops. UID is not sent.
func (c *Client) SetBackend(ctx context.Context, b BackendChange) (*BackendChanged, error) {
	path := "/vips/" + url.PathEscape(b.VIP) + "/backends/" + url.PathEscape(b.Address) + "/" + url.PathEscape(b.State)
	if b.Unit != "" {
		path = "/units/" + url.PathEscape(b.Unit) + "/" + url.PathEscape(b.State)
	}
	query := url.Values{}
	if b.Wait > 0 {
		query.Set("timeout", min(b.Wait, maxWait).String())
	}
	if b.Force {
		query.Set("force", "true")
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return do[BackendChanged](ctx, c, http.MethodPost, path)
}
