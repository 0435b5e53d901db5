package lb

import (
	"cmp"
	"slices"
)

// limboKind says which table has the index, or the region.
type limboKind uint8

const (
	limboFrontend limboKind = iota
	limboBackend
	limboRegion
	limboPolicy
)

// limbo is an entry of Have.limbo.
type limbo struct {
	kind limboKind
	at   uint32
}

// release frees the first n things in limbo.
func (h *Have) release(n int) {
	free := slices.Clone(h.limbo[:n])
	h.limbo = slices.Delete(h.limbo, 0, n)
	slices.SortFunc(free, func(a, b limbo) int { return cmp.Compare(a.at, b.at) })
	for _, l := range free {
		switch l.kind {
		case limboFrontend:
			h.freeFrontends.give(l.at, 1)
		case limboBackend:
			h.freeBackends.give(l.at, 1)
		case limboRegion:
			if r := h.regions[l.at]; r != nil && r.refs == 0 {
				h.freeSlots.give(l.at, r.n)
				delete(h.regions, l.at)
				delete(h.maps.Slots, l.at)
			}
		case limboPolicy:
			h.freePolicy.give(l.at, h.policy.tables[l.at].lines)
			delete(h.policy.tables, l.at)
		}
	}
}
