package bpf

// What choose.h does by a caller's key, for those who want to know where it leads.

// Caller is who Maglev chooses for.
type Caller struct {
	Group string // its name
	Split uint64 // id of the cgroup that is its split child; 0 = it is in none
	Netns uint64 // cookie of its network namespace
}

// hash is caller_hash(): a split child's is its own, any other group's its name's,
// the same on every host.
func (c Caller) hash() uint64 {
	who := c.Split
	if who == 0 {
		who = 1<<43 | uint64(nameHash(c.Group)) // SLB_WHO_GROUP without the index
	}
	return who + c.Netns*0xd1342543de82ef95
}

// MaglevPlace is where a caller's key leads to in a table of n places (SLB_HASH_KEY).
func MaglevPlace(key uint64, n uint32) uint32 {
	return uint32(uint64(uint32(key*0x9e3779b97f4a7c15>>32)) * uint64(n) >> 32)
}

// MaglevBackend is the index of the backend that a caller's key leads to in a cell; 0
// where the cell has no slots. The network namespace has a say where the cell has
// affinity. What the caller keeps by that goes before.
func (d *Dump) MaglevBackend(cell Cell, c Caller) uint32 {
	slots := d.Slots[cell.Base]
	if cell.Count == 0 || int(cell.Count) > len(slots) {
		return 0
	}
	if cell.Affinity == 0 {
		c.Netns = 0
	}
	return SlotBackend(slots[MaglevPlace(c.hash(), cell.Count)])
}
