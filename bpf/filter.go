package bpf

import (
	"net/netip"
	"sync/atomic"
)

// filter is one of the bitmaps over hashed addresses that answer most calls
// before any look-up. A bit is set before the first entry that needs it and
// cleared after the last is gone, so users counts entries by bit.
type filter struct {
	words []uint64 // shared with the programs
	users map[uint32]uint32
}

func newFilter(words []uint64) *filter {
	return &filter{words: words, users: make(map[uint32]uint32)}
}

// filterBit is SLB_FILTER_BIT of api.h.
func filterBit(a slicelbSlbAddr, bits int) uint32 {
	w := a.WordBe
	h := (w[0]^w[1]<<7)*0xc2b2ae35 ^ w[2]*0x85ebca6b ^ w[3]*0x9e3779b1
	return h >> (32 - bits)
}

// bit is a's place in this filter, whose length is a power of two.
func (f *filter) bit(a slicelbSlbAddr) uint32 {
	bits := 6
	for n := len(f.words); n > 1; n >>= 1 {
		bits++
	}
	return filterBit(a, bits)
}

func (f *filter) add(a slicelbSlbAddr) {
	bit := f.bit(a)
	if f.users[bit]++; f.users[bit] == 1 {
		atomic.OrUint64(&f.words[bit>>6], 1<<(bit&63))
	}
}

func (f *filter) remove(a slicelbSlbAddr) {
	bit := f.bit(a)
	switch n := f.users[bit]; n {
	case 0:
	case 1:
		delete(f.users, bit)
		atomic.AndUint64(&f.words[bit>>6], ^uint64(1<<(bit&63)))
	default:
		f.users[bit] = n - 1
	}
}

// rebuild makes the bitmap say exactly these addresses. A bit that stays set is
// never clear in between.
func (f *filter) rebuild(addrs func(yield func(netip.Addr) bool)) error {
	want := make([]uint64, len(f.words))
	f.users = make(map[uint32]uint32)
	for a := range addrs {
		key, err := encodeAddr(a)
		if err != nil {
			return err
		}
		bit := f.bit(key)
		f.users[bit]++
		want[bit>>6] |= 1 << (bit & 63)
	}
	for i, w := range want {
		if atomic.LoadUint64(&f.words[i]) != w {
			atomic.StoreUint64(&f.words[i], w)
		}
	}
	return nil
}
