package anchor

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// region is the set of names that a pattern edge matches.
type region struct{ prefix, suffix string }

func (r region) covers(o region) bool {
	return strings.HasPrefix(o.prefix, r.prefix) && strings.HasSuffix(o.suffix, r.suffix)
}

// intersect is what two regions share: another region, and the few names that
// are shorter than it because their prefix and suffix overlap.
func intersect(a, b region) (both region, overlaps []string, ok bool) {
	both = a
	switch {
	case strings.HasPrefix(b.prefix, a.prefix):
		both.prefix = b.prefix
	case !strings.HasPrefix(a.prefix, b.prefix):
		return region{}, nil, false
	}
	switch {
	case strings.HasSuffix(b.suffix, a.suffix):
		both.suffix = b.suffix
	case !strings.HasSuffix(a.suffix, b.suffix):
		return region{}, nil, false
	}
	least := max(len(a.prefix)+len(a.suffix), len(b.prefix)+len(b.suffix))
	p, s := both.prefix, both.suffix
	for n := 1; n <= min(len(p), len(s)) && len(p)+len(s)-n >= least; n++ {
		if strings.HasSuffix(p, s[:n]) {
			overlaps = append(overlaps, p+s[n:])
		}
	}
	return both, overlaps, true
}

// close returns the regions of a state's one-star patterns with all their
// intersections, the most specific first, so that the first that matches a name
// stands for all that match it. Names that two patterns share by overlap come
// apart from them. Patterns that would make it more than limit are dropped,
// the later first.
func (b *builder) close(s *state, limit int) (regions []region, dropped []int, overlaps []string) {
	closed := map[region]bool{}
	for _, g := range s.globs {
		if g.shape != oneStar {
			continue
		}
		add := map[region]bool{}
		var shorter []string
		if r := (region{g.prefix, g.suffix}); !closed[r] {
			add[r] = true
			for other := range closed {
				both, names, ok := intersect(r, other)
				if !ok {
					continue
				}
				shorter = append(shorter, names...)
				if !closed[both] && len(both.prefix)+len(both.suffix) <= MaxName {
					add[both] = true
				}
			}
		}
		if len(closed)+len(add) > limit {
			dropped = append(dropped, g.pattern)
			continue
		}
		maps.Copy(closed, add)
		overlaps = append(overlaps, shorter...)
	}
	regions = slices.SortedFunc(maps.Keys(closed), func(a, b region) int {
		return cmp.Or(cmp.Compare(len(b.prefix)+len(b.suffix), len(a.prefix)+len(a.suffix)),
			cmp.Compare(a.prefix, b.prefix), cmp.Compare(a.suffix, b.suffix))
	})
	return regions, dropped, overlaps
}

// covering are the one-star patterns that match every name of a region.
func covering(s *state, r region) []int {
	var matched []int
	for _, g := range s.globs {
		if g.shape == oneStar && (region{g.prefix, g.suffix}).covers(r) {
			matched = append(matched, g.pattern)
		}
	}
	return matched
}
