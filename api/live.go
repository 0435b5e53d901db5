package api

import (
	"context"
	"net/url"
)

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
	Order   string `json:"order,omitempty"` // an operator's: drain or maint
}

// Total is the sum over the backends.
func (l *Live) Total() uint64 {
	var n uint64
	for _, b := range l.Backends {
		n += b.Live
	}
	return n
}

// Live counts the open sockets of the backends that b is about, whatever its
// State.
func (c *Client) Live(ctx context.Context, b BackendChange) (*Live, error) {
	if b.Unit != "" {
		return get[Live](ctx, c, "/units/"+url.PathEscape(b.Unit)+"/live")
	}
	return get[Live](ctx, c, "/vips/"+url.PathEscape(b.VIP)+"/backends/"+url.PathEscape(b.Address)+"/live")
}
