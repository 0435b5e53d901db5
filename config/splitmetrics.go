package config

import "github.com/slicelb/slicelb/internal/prose"

const (
	maxSplitMetrics = 1000 // of one group

	// MaxSplitCounters bounds the counters of split children: half of those that
	// the data plane has for pairs of group and VIP.
	MaxSplitCounters = 8192
)

// checkSplitMetrics: each child may call each VIP, in both families, and the
// networks of rules, and each of that takes a counter from the same table as the
// groups' own.
func (b *builder) checkSplitMetrics() {
	each := uint64(1)
	for _, v := range b.vips {
		var v4, v6 uint64
		for _, f := range v.Frontends {
			if f.Addr.Addr().Is4() {
				v4 = 1
			} else {
				v6 = 1
			}
		}
		each += v4 + v6
	}
	children := uint64(0)
	for _, g := range b.groups {
		if g.SplitMetrics == 0 {
			continue
		}
		if g.Split == "" {
			b.warnf(g.metricsAt, "", "split_metrics does nothing in group.%s: it has no split", printable(g.Name))
			continue
		}
		before := children
		if children += uint64(g.SplitMetrics); before*each <= MaxSplitCounters && children*each > MaxSplitCounters {
			b.errorf(g.metricsAt, "", "split_metrics of all groups: %d children with %s each (a VIP has one for each family, and the networks of rules have one) are %d, more than %d; at most %d children",
				children, prose.Plural(int(each), "counter"), children*each, MaxSplitCounters, MaxSplitCounters/each)
		}
	}
}
