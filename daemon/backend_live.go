package daemon

import (
	"context"
	"fmt"
	"sync"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/lb"
)

// liveIndex is where the kernel counts the open sockets of each backend. Whoever
// waits for some of them to close asks again and again: the tables are read anew
// only when something was written to them.
type liveIndex struct {
	mu     sync.Mutex
	of     dataPath
	writes uint64
	index  map[lb.Endpoint][]uint32
}

// at returns the index of what v knows.
func (l *liveIndex) at(v *view) (map[lb.Endpoint][]uint32, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.index != nil && l.of == v.dp && l.writes == v.status.DataPlane.Writes {
		return l.index, nil
	}
	d, err := v.dp.Dump()
	if err != nil {
		return nil, fmt.Errorf("read the maps: %w", err)
	}
	index := map[lb.Endpoint][]uint32{}
	for i, b := range d.Backends {
		e := lb.Endpoint{VIP: d.CellInfos[b.Cell].VIP, Addr: b.Addr}
		index[e] = append(index[e], i)
	}
	l.of, l.writes, l.index = v.dp, v.status.DataPlane.Writes, index
	return index, nil
}

// Live counts the open sockets of backends, and says which are still ordered out. One
// that is not there any more has none of either.
func (a answers) Live(_ context.Context, q api.BackendChange) (*api.Live, error) {
	v := a.d.view.Load()
	if !v.ready {
		return nil, api.Errorf(api.Busy, "the daemon starts: what is open is not counted yet")
	}
	if v.source == nil {
		return nil, api.Errorf(api.Failed, "no configuration runs")
	}
	out := &api.Live{Backends: []api.BackendLive{}}
	var all []lb.Endpoint
	if q.Unit != "" {
		all = v.source.endpointsOf(q.Unit)
	} else {
		addr, err := parseBackend(q.Address)
		if err != nil {
			return nil, err
		}
		all = []lb.Endpoint{{VIP: q.VIP, Addr: addr}}
	}
	index := map[lb.Endpoint][]uint32{}
	if v.dp != nil {
		var err error
		if index, err = a.d.live.at(v); err != nil {
			return nil, err
		}
	}
	for _, e := range all {
		one := api.BackendLive{VIP: e.VIP, Address: e.Addr.String()}
		for _, i := range index[e] {
			n, err := v.dp.LiveOf(i)
			if err != nil {
				return nil, fmt.Errorf("count sockets: %w", err)
			}
			one.Live += n
		}
		out.Backends = append(out.Backends, one)
	}
	// Asked last: one that has left meanwhile, and has no sockets for that, has no order
	// either.
	orders := a.d.view.Load().orders
	for i, e := range all {
		out.Backends[i].Order = orders[e].State
	}
	return out, nil
}
