package daemon

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"strings"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/metrics"
)

// reading is the daemon for the metrics: what status says, and more. It reads
// the maps once. Where they cannot be read, what they count is absent, never zero.
func (a answers) reading(ctx context.Context) (*metrics.Reading, error) {
	v := a.now(ctx)
	s, c, err := a.status(v)
	if err != nil {
		return nil, err
	}
	r := &metrics.Reading{
		Status: s, Calls: callsOf(c, toVIPs), Networks: callsOf(c, deniedNetworks), Tables: c.tables, Ready: v.ready, GoVersion: runtime.Version(),
		Children: c.split, Reconciled: a.d.reconciled.read(), Health: a.d.backends.checker.Stats(),
	}
	if c.dump != nil && v.source != nil {
		r.Uncounted = uncounted(v.source.cfg, v.snap, c.dump)
		r.Rules = rulesOf(v.source.cfg)
		if err := addHits(r.Rules, c.dump, v.dp); err != nil {
			return nil, err
		}
	}
	if v.rec != nil {
		r.Reconciler = v.rec.Stats()
	}
	if a.d.watcher != nil {
		r.Causes = a.d.watcher.Stats().Causes
	}
	return r, nil
}

// callsOf lists what groups called, as far as it is wanted, by VIP and group; what
// the daemon itself called is nobody's.
func callsOf(c *counted, wanted func(pair, api.Counters) bool) []api.Calls {
	out := make([]api.Calls, 0, len(c.calls))
	for key, n := range c.calls {
		if key.group != lb.DaemonGroup && wanted(key, n) {
			out = append(out, api.Calls{VIP: key.vip, Group: key.group, Counters: n})
		}
	}
	slices.SortFunc(out, func(a, b api.Calls) int {
		return cmp.Or(strings.Compare(a.VIP, b.VIP), strings.Compare(a.Group, b.Group))
	})
	return out
}

func toVIPs(p pair, _ api.Counters) bool { return p.vip != "" }

func deniedNetworks(p pair, n api.Counters) bool { return p.vip == "" && n.Denied > 0 }

// tablesOf is how full the bounded tables are. Index 0 of some stands for
// nothing, and is no room.
func tablesOf(d *bpf.Dump, n *bpf.CounterSnapshot, l bpf.Limits, slots uint64) []metrics.Table {
	table := func(name string, used int, capacity uint32) metrics.Table {
		return metrics.Table{Name: name, Usage: api.Usage{Used: uint64(used), Capacity: uint64(capacity)}}
	}
	return []metrics.Table{
		table("frontends", len(d.Frontends), l.Frontends-1),
		table("cells", len(d.Cells), l.Cells-1),
		table("views", len(d.Views), l.Views),
		table("backends", len(d.Backends), l.Backends-1),
		table("slots", int(slots), l.Slots),
		table("groups", len(d.Groups), l.Groups),
		table("cgroups", len(d.Cgroups), l.Cgroups),
		table("expect", len(d.Expect), l.Expect),
		table("expect_patterns", len(d.Patterns), l.Expect),
		table("pairs", int(n.Places.Used), n.Places.Limit),
		table("policy_lines", int(d.PolicyLines), l.PolicyLines-1),
	}
}
