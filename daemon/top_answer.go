package daemon

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
)

// Top answers with what was counted until now. Who asks wants to know how long
// connects take.
func (a answers) Top(ctx context.Context) (*api.Top, error) {
	v, err := a.readable(ctx)
	if err != nil {
		return nil, err
	}
	a.d.observer.AskTimes()
	c, err := a.counters(v)
	if err != nil {
		return nil, err
	}
	top := &api.Top{At: time.Now(), VIPs: []api.TopVIP{}, Groups: []api.TopGroup{}, Backends: []api.TopBackend{}}
	if v.source == nil {
		return top, nil
	}
	took := map[string]bpf.Latency{}
	if v.dp != nil {
		for cell, l := range v.dp.Latencies() {
			name := v.dp.VIPName(cell)
			took[name] = took[name].Plus(l)
		}
	}
	for i := range v.source.cfg.VIPs {
		vip := c.vipOf(&v.source.cfg.VIPs[i])
		one := api.TopVIP{Name: vip.Name, Up: vip.Up, Backends: len(vip.Backends), Live: vip.Live, Counters: vip.Counters, Took: []api.TookCount{}}
		if l, ok := took[vip.Name]; ok {
			for i, n := range l {
				t := api.TookCount{Below: bpf.LatencyBound(i), Count: n}
				if i == len(l)-1 {
					t.Below = 0
				}
				one.Took = append(one.Took, t)
			}
		}
		top.VIPs = append(top.VIPs, one)
		for _, b := range vip.All() {
			top.Backends = append(top.Backends, api.TopBackend{
				VIP: b.VIP, Group: b.Group, Address: b.Address, State: b.State, Share: b.Share, Live: b.Live, Counters: b.Counters,
			})
		}
	}
	top.Groups = topGroups(c)
	return top, nil
}

func topGroups(c *counted) []api.TopGroup {
	out := []api.TopGroup{}
	for _, n := range callsOf(c, func(pair, api.Counters) bool { return true }) {
		out = append(out, api.TopGroup(n))
	}
	slices.SortFunc(out, func(a, b api.TopGroup) int {
		return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.VIP, b.VIP))
	})
	return out
}
