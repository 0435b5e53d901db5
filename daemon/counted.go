package daemon

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/metrics"
)

// counted is what the kernel's counters say, by names.
type counted struct {
	vip     map[string]api.Counters
	calls   map[pair]api.Counters
	split   []metrics.ChildCalls
	backend map[backendKey]api.Counters
	live    map[backendKey]uint64
	liveOf  map[string]uint64 // by VIP
	state   map[backendKey]bpf.BackendState
	slots   uint64
	tables  []metrics.Table
	dump    *bpf.Dump // what all this is of; nil without a data plane

	share   map[shareKey]float64
	orders  map[lb.Endpoint]order
	back    map[lb.Endpoint]time.Time
	source  *source
	part    *part     // see view
	kernel  *lb.State // see view
	results map[health.Endpoint]health.Result
	now     time.Time
}

type backendKey struct {
	vip  string
	addr netip.AddrPort
}

// pair is a group and what it called. The daemon's own group is one too.
type pair struct {
	vip   string // "" = networks that rules name
	group string
}

func plus(a api.Counters, b bpf.Counters) api.Counters {
	return api.Counters{
		Connects: a.Connects + b.Connects, Flows: a.Flows + b.Flows,
		Passed: a.Passed + b.Passed, Rejected: a.Rejected + b.Rejected, Denied: a.Denied + b.Denied,
	}
}

// counters reads the kernel's. Without a data plane everything is zero.
func (a answers) counters(v *view) (*counted, error) {
	c := &counted{
		vip: map[string]api.Counters{}, calls: map[pair]api.Counters{},
		backend: map[backendKey]api.Counters{}, state: map[backendKey]bpf.BackendState{},
		live: map[backendKey]uint64{}, liveOf: map[string]uint64{},
		orders: v.orders, back: v.back, source: v.source, part: v.part, kernel: v.kernel, results: a.d.backends.checker.Results(), now: time.Now(),
	}
	if v.dp == nil {
		return c, nil
	}
	d, n, err := a.readMaps(v)
	if err != nil {
		return nil, err
	}
	if v.source != nil {
		c.share = sharesOf(d, v.source.cfg)
	}
	for cell, counters := range n.Cells {
		name := d.CellInfos[cell].VIP
		c.vip[name] = plus(c.vip[name], counters)
	}
	for at, counters := range n.Pairs {
		key := pair{d.CellInfos[at.Cell].VIP, cmp.Or(d.Groups[at.Group].Name, lb.HostGroup)}
		c.calls[key] = plus(c.calls[key], counters)
	}
	c.split = childCalls(v.snap, d, n)
	for index, b := range d.Backends {
		key := backendKey{d.CellInfos[b.Cell].VIP, b.Addr}
		if state := d.BackendCells[index].State; state != bpf.BackendFree {
			c.state[key] = state
		}
		counters := n.Backends[index]
		have := c.backend[key]
		have.Connects += counters.Connects
		have.Flows += counters.Flows
		c.backend[key] = have
		if live := n.Live[index]; live > 0 {
			c.live[key] += live
			c.liveOf[key.vip] += live
		}
	}
	regions := map[uint32]uint32{}
	for _, cell := range d.Cells {
		if cell.Action == bpf.Balance {
			regions[cell.Base] = cell.Count
		}
	}
	for _, count := range regions {
		c.slots += uint64(count)
	}
	c.tables, c.dump = tablesOf(d, n, v.dp.Limits(), c.slots), d
	return c, nil
}

// vip describes a VIP as it runs.
func (c *counted) vipOf(v *config.VIP) api.VIP {
	out := api.VIP{
		Name: v.Name, Algorithm: string(v.Algorithm), Affinity: v.Affinity.String(), Clients: v.Clients, Except: append([]string{}, v.Except...), Hidden: string(v.Hidden), WhenDown: string(v.WhenDown), Terminate: string(v.Terminate), Health: healthText(v.Health),
		DrainTimeout: v.DrainTimeout.String(), RejectUnknownPorts: v.RejectUnknownPorts,
		Origin: v.Origin.String(), Counters: c.vip[v.Name], Live: c.liveOf[v.Name], Frontends: []string{},
		Backends: c.backends(v, "", v.Backends), For: []api.View{},
	}
	out.Units, out.Families = c.units(v), c.families(v)
	for _, f := range v.Frontends {
		out.Frontends = append(out.Frontends, f.String())
	}
	for _, b := range out.Backends {
		if b.Share > 0 {
			out.Up++
		}
	}
	for _, view := range v.For {
		out.For = append(out.For, api.View{
			Group: view.Group, WhenDown: string(view.WhenDown), Counters: c.calls[pair{v.Name, view.Group}],
			Backends: c.backends(v, view.Group, view.Backends),
		})
	}
	return out
}

func (c *counted) backends(vip *config.VIP, group string, list []config.Backend) []api.Backend {
	out := make([]api.Backend, len(list))
	for i, b := range list {
		key := backendKey{vip.Name, b.Addr}
		out[i] = api.Backend{
			VIP: vip.Name, Group: group, Address: b.Addr.String(), Weight: b.Weight, State: "pending",
			Live: c.live[key], Counters: c.backend[key], Origin: b.Origin.String(),
		}
		if s, ok := c.state[key]; ok {
			out[i].State = s.String()
		}
		c.decided(vip, group, b, &out[i])
	}
	return out
}
