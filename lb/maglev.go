package lb

import (
	"encoding/binary"
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
// sum; its elements are positions in addrs. Backends take turns, the more often
// the more places they have, and each takes the first free place of a sequence
// that follows from its address alone: when one goes, the others mostly find
// their places as before.
func maglevTable(addrs []netip.AddrPort, counts []uint32, size uint32) []int32 {
	type taker struct {
		backend      int32
		place, step  uint32
		left         uint32
		credit, gain uint64
	}
	takers := make([]taker, 0, len(addrs))
	var most uint32
	for i, n := range counts {
		if n == 0 {
			continue
		}
		most = max(most, n)
		h := addressHash(addrs[i])
		takers = append(takers, taker{
			backend: int32(i), left: n, gain: uint64(n),
			place: uint32(uint64(uint32(h)) * uint64(size) >> 32),
			step:  1 + uint32(uint64(uint32(h>>32))*uint64(size-1)>>32),
		})
	}
	table := make([]int32, size)
	for i := range table {
		table[i] = -1
	}
	for len(takers) > 0 {
		rest := takers[:0]
		for _, t := range takers {
			if t.credit += t.gain; t.credit >= uint64(most) {
				t.credit -= uint64(most)
				for table[t.place] >= 0 {
					if t.place += t.step; t.place >= size {
						t.place -= size
					}
				}
				table[t.place] = t.backend
				t.left--
			}
			if t.left > 0 {
				rest = append(rest, t)
			}
		}
		takers = rest
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
