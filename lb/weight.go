package lb

import (
	"cmp"
	"slices"
)

// MaxSlots is how many slots a cell has at most, unless it has more backends.
const MaxSlots = 4096

// slotCounts expands weights into numbers of slots: each weight divided by
// their greatest common divisor where that fits into limit slots, else the
// shares of limit slots by largest remainder. A weight of 0 has no slot, every
// other at least one, so that more backends than limit have one each.
func slotCounts(weights []uint32, limit uint32) []uint32 {
	counts := make([]uint32, len(weights))
	var divisor uint32
	for _, w := range weights {
		divisor = gcd(divisor, w)
	}
	if divisor == 0 {
		return counts
	}
	var total uint64
	for i, w := range weights {
		counts[i] = w / divisor
		total += uint64(counts[i])
	}
	if total <= uint64(limit) {
		return counts
	}
	share(counts, total, uint64(limit))
	return counts
}

// share scales counts, which sum to total, to a sum of limit.
func share(counts []uint32, total, limit uint64) {
	type part struct {
		i         int
		remainder uint64
	}
	// Whose share is less than one slot gets one; what is left is shared again
	// among the others, which can push more of them below one.
	weights := slices.Clone(counts)
	var open []int
	for i, w := range weights {
		if w > 0 {
			open = append(open, i)
		}
	}
	for small := true; small; {
		small = false
		kept := open[:0:0]
		lost, slots := uint64(0), uint64(0)
		for _, i := range open {
			if uint64(weights[i])*limit < total {
				counts[i] = 1
				lost += uint64(weights[i])
				slots++
				small = true
				continue
			}
			kept = append(kept, i)
		}
		open, total, limit = kept, total-lost, limit-min(slots, limit)
	}
	var parts []part
	left := limit
	for _, i := range open {
		scaled := uint64(weights[i]) * limit
		counts[i] = uint32(scaled / total)
		left -= scaled / total
		parts = append(parts, part{i, scaled % total})
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(b.remainder, a.remainder) })
	for _, p := range parts[:min(left, uint64(len(parts)))] {
		counts[p.i]++
	}
}

func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
