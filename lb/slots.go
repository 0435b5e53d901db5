package lb

import (
	"net/netip"

	"github.com/slicelb/slicelb/bpf"
)

// slots are a pool's, in the order that the VIP's algorithm wants; index says
// which backend each of want.Backends is in the maps.
func (v *VIP) slots(pool Pool, index []uint32) []uint32 {
	out := make([]uint32, 0, pool.Size())
	switch v.Algorithm {
	case bpf.Maglev:
		addrs := make([]netip.AddrPort, len(pool))
		counts, weights := make([]uint32, len(pool)), make([]uint32, len(pool))
		for i, s := range pool {
			addrs[i], counts[i], weights[i] = v.Backends[s.Backend].Addr, s.Slots, s.Weight
		}
		for _, i := range maglevTable(addrs, counts, weights, pool.Size()) {
			out = append(out, index[pool[i].Backend])
		}
	case bpf.LeastConnections:
		last := 0
		for i, s := range pool {
			if s.Slots > pool[last].Slots {
				last = i
			}
		}
		add := func(s Share) {
			for range s.Slots {
				out = append(out, bpf.NewSlot(index[s.Backend], s.Slots))
			}
		}
		for i, s := range pool {
			if i != last {
				add(s)
			}
		}
		add(pool[last])
	default:
		for _, s := range pool {
			for range s.Slots {
				out = append(out, index[s.Backend])
			}
		}
	}
	return out
}
