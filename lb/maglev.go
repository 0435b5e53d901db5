package lb

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
)

// maglevSizes are primes: a step of any length passes every place of a table.
var maglevSizes = []uint32{251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65537}

// maglevPerBackend is how many places a backend has at least, up to the largest
// table: so few keys move when another one goes, and none has much too many.
const maglevPerBackend = 100

// maglevSize is the size of a table for so many backends.
func maglevSize(backends int) uint32 {
	for _, m := range maglevSizes {
		if int(m) >= backends*maglevPerBackend {
			return m
		}
	}
	return maglevSizes[len(maglevSizes)-1]
}

// maglevCounts are the places of each backend: shares of a whole table, by
// weight.
func maglevCounts(weights []uint32) []uint32 { return maglevPlaces(weights, 0) }

// maglevPlaces is maglevCounts with a table for so many backends at least: those
// of the configuration. If it had the size for those that are up, one that goes
// or comes would now and then change the size, and move nearly every key.
func maglevPlaces(weights []uint32, backends int) []uint32 {
	counts := make([]uint32, len(weights))
	var total uint64
	n := 0
	for i, w := range weights {
		if counts[i] = w; w > 0 {
			total += uint64(w)
			n++
		}
	}
	if n > 0 {
		share(counts, total, uint64(maglevSize(max(n, backends))))
	}
	return counts
}

// maglevTable is a table of size places, of which backend i has counts[i], their
// sum; its elements are positions in addrs. Each backend asks for the places of a
// sequence that follows from its address alone, one after the other, until it has
// its number. A place that two ask for goes to the one in whose sequence it comes
// earlier, for its weight; the other asks on. So who asks first changes nothing,
// and when a backend goes, what it leaves is all that is shared out anew, and what
// those give up who find a better place among it: half of what moves where the
// first to come keeps a place.
func maglevTable(addrs []netip.AddrPort, counts, weights []uint32, size uint32) []int32 {
	const unit = 1 << 40 // more than any weight, and with size to spare
	type taker struct {
		place, step uint32
		turn, gap   uint64 // how early the next place comes; what each costs
	}
	takers := make([]taker, len(addrs))
	table := make([]int32, size)
	turns := make([]uint64, size) // of those who have the places
	for i := range turns {
		turns[i] = math.MaxUint64
	}
	var asking []int32
	for i, n := range counts {
		if n == 0 {
			continue
		}
		h := addressHash(addrs[i])
		t := taker{
			place: uint32(uint64(uint32(h)) * uint64(size) >> 32),
			step:  1 + uint32(uint64(uint32(h>>32))*uint64(size-1)>>32),
			gap:   unit / uint64(weights[i]),
		}
		// A size is a prime, unless there are more backends than places.
		for gcd(t.step, size) != 1 {
			t.step++
		}
		t.turn, _ = bits.Mul64(h, t.gap) // the same address, the same part of a turn: no ties
		takers[i] = t
		for range n {
			asking = append(asking, int32(i))
		}
	}
	for len(asking) > 0 {
		i := asking[len(asking)-1]
		asking = asking[:len(asking)-1]
		t := takers[i]
		for seated := false; !seated; {
			if was := turns[t.place]; t.turn < was {
				if was != math.MaxUint64 {
					asking = append(asking, table[t.place])
				}
				table[t.place], turns[t.place], seated = i, t.turn, true
			}
			t.turn += t.gap
			if t.place += t.step; t.place >= size {
				t.place -= size
			}
		}
		takers[i] = t
	}
	return table
}

// addressHash is the same on every host: FNV-1a, then finished, because
// addresses differ in few bits.
func addressHash(a netip.AddrPort) uint64 {
	b := a.Addr().As16()
	h := uint64(14695981039346656037)
	for _, c := range binary.BigEndian.AppendUint16(b[:], a.Port()) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
