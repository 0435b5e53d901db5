package daemon

import (
	"cmp"
	"slices"
	"strings"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/metrics"
	"github.com/slicelb/slicelb/unitwatch"
)

// childPair is a split child and what it called.
type childPair struct {
	pair
	child string // its group's name behind the slash: other people's text
}

// childCalls is what the counters of split children say, by names. A child that is
// gone has none.
func childCalls(snap *unitwatch.Snapshot, d *bpf.Dump, n *bpf.CounterSnapshot) []metrics.ChildCalls {
	if snap == nil || len(n.Children) == 0 {
		return nil
	}
	who := map[uint32]childPair{}
	for i := range snap.Cgroups {
		if c := &snap.Cgroups[i]; c.Match.Split && d.Cgroups[c.ID].Counted {
			group := c.Match.Group
			who[bpf.ChildOf(c.ID)] = childPair{pair{group: group}, strings.TrimPrefix(c.Group, group+"/")}
		}
	}
	calls := map[childPair]api.Counters{}
	for at, counters := range n.Children {
		key, ok := who[at.Group]
		if !ok {
			continue
		}
		key.vip = d.CellInfos[at.Cell].VIP
		calls[key] = plus(calls[key], counters)
	}
	out := make([]metrics.ChildCalls, 0, len(calls))
	for key, counters := range calls {
		out = append(out, metrics.ChildCalls{Calls: api.Calls{VIP: key.vip, Group: key.group, Counters: counters}, Child: key.child})
	}
	slices.SortFunc(out, func(a, b metrics.ChildCalls) int {
		return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.Child, b.Child), strings.Compare(a.VIP, b.VIP))
	})
	return out
}

// uncounted is how many split children of each group that asks for their metrics
// have none.
func uncounted(cfg *config.Config, snap *unitwatch.Snapshot, d *bpf.Dump) map[string]int {
	out := map[string]int{}
	for i := range cfg.Groups {
		if g := &cfg.Groups[i]; g.Split != "" && g.SplitMetrics > 0 {
			out[g.Name] = 0
		}
	}
	if snap == nil || len(out) == 0 {
		return out
	}
	for i := range snap.Cgroups {
		c := &snap.Cgroups[i]
		if _, asks := out[c.Match.Group]; asks && c.Match.Split && !d.Cgroups[c.ID].Counted {
			out[c.Match.Group]++
		}
	}
	return out
}
