package lb

import "github.com/slicelb/slicelb/bpf"

// write applies one write that was done.
func (h *Have) write(w bpf.Write) {
	switch w := w.(type) {
	case bpf.PutFrontend:
		h.freeFrontends.take(w.Index, 1)
		h.putFrontend(w.Key, w.Index)
	case bpf.DelFrontend:
		h.delFrontend(w.Key)
	case bpf.SetFrontendRef:
		h.setFrontendRef(w.Index, w.Ref)
	case bpf.SetCell:
		h.setCell(w.Index, w.Cell)
	case bpf.SetCellInfo:
		if w.Info.Family != 0 {
			h.freeCells.take(w.Index, 1)
		} else {
			h.freeCells.give(w.Index, 1)
		}
		h.setCellInfo(w.Index, w.Info)
	case bpf.PutView:
		h.putView(w.Key, w.Cell)
	case bpf.DelView:
		h.delView(w.Key)
	case bpf.SetSlots:
		h.freeSlots.take(w.Base, uint32(len(w.Slots)))
		h.maps.Slots[w.Base] = w.Slots
		h.regions[w.Base] = &region{n: uint32(len(w.Slots))}
	case bpf.SetBackend:
		h.freeBackends.take(w.Index, 1)
		h.maps.Backends[w.Index] = w.Backend
	case bpf.SetBackendCell:
		h.setBackendCell(w.Index, w.Cell)
	case bpf.SetGroup:
		if w.Group.Name != "" {
			h.freeGroups.take(w.Index, 1)
		} else {
			h.freeGroups.give(w.Index, 1)
		}
		h.setGroup(w.Index, w.Group)
	case bpf.SetPolicyTable:
		h.setPolicyTable(w)
	case bpf.SetPolicy:
		h.setPolicy(w)
	case bpf.PutCgroup:
		h.setCgroup(w.ID, w.Rule)
	case bpf.SetCgroup:
		h.setCgroup(w.ID, w.Rule)
	case bpf.DelCgroup:
		h.delCgroup(w.ID)
		delete(h.unseen, w.ID)
	case bpf.PutExpect:
		h.setExpect(w.Key, w.Rule)
	case bpf.SetExpect:
		h.setExpect(w.Key, w.Rule)
	case bpf.DelExpect:
		h.use(h.maps.Expect[w.Key].Group, -1)
		delete(h.maps.Expect, w.Key)
	case bpf.PutPattern:
		h.setPattern(w.Key, w.Pattern)
	case bpf.SetPattern:
		p := h.maps.Patterns[w.Key]
		p.Rule = w.Rule
		h.setPattern(w.Key, p)
	case bpf.DelPattern:
		h.use(h.maps.Patterns[w.Key].Rule.Group, -1)
		delete(h.maps.Patterns, w.Key)
	}
}

func (h *Have) putFrontend(k bpf.FrontendKey, index uint32) {
	h.maps.Frontends[k] = index
	h.frontendAt[index] = k
	delete(h.staleRefs, index)
	h.at(h.maps.FrontendRefs[index].Cell).frontends[k] = index
}

func (h *Have) delFrontend(k bpf.FrontendKey) {
	index, ok := h.maps.Frontends[k]
	if !ok {
		return
	}
	delete(h.maps.Frontends, k)
	delete(h.frontendAt, index)
	ref := h.maps.FrontendRefs[index]
	u := h.at(ref.Cell)
	delete(u.frontends, k)
	h.forget(u)
	if ref.Cell != 0 {
		h.staleRefs[index] = true
	}
	h.limbo = append(h.limbo, limbo{limboFrontend, index})
}

func (h *Have) setFrontendRef(index uint32, ref bpf.FrontendRef) {
	old := h.maps.FrontendRefs[index]
	h.maps.FrontendRefs[index] = ref
	if k, ok := h.frontendAt[index]; ok {
		u := h.at(old.Cell)
		delete(u.frontends, k)
		h.forget(u)
		h.at(ref.Cell).frontends[k] = index
		return
	}
	if ref.Cell != 0 {
		h.staleRefs[index] = true
	} else {
		delete(h.staleRefs, index)
	}
}

func (h *Have) setCell(index uint32, c bpf.Cell) {
	old := h.maps.Cells[index]
	h.maps.Cells[index] = c
	if u := h.units[index]; u != nil {
		u.settled = false
	}
	if u := h.units[h.viewOf[index].Cell]; u != nil {
		u.settled = false
	}
	if c.Action == bpf.Balance {
		r := h.regions[c.Base]
		if r == nil {
			r = &region{n: c.Count}
			h.regions[c.Base] = r
		}
		r.refs++
	}
	if old.Action == bpf.Balance {
		if r := h.regions[old.Base]; r != nil {
			if r.refs--; r.refs == 0 {
				h.limbo = append(h.limbo, limbo{limboRegion, old.Base})
			}
		}
	}
	if c == (bpf.Cell{}) {
		delete(h.maps.Cells, index)
	}
}

func (h *Have) setCellInfo(index uint32, info bpf.CellInfo) {
	old := h.maps.CellInfos[index]
	if old.Family != 0 && old.Group == "" {
		u := h.at(index)
		h.called(u, unitName{})
		h.forget(u)
	}
	delete(h.orphans, index)
	if info.Family == 0 {
		delete(h.maps.CellInfos, index)
		return
	}
	h.maps.CellInfos[index] = info
	if info.Group == "" {
		h.called(h.at(index), unitName{info.VIP, info.Family})
	} else if _, ok := h.viewOf[index]; !ok {
		h.orphans[index] = true
	}
}

func (h *Have) putView(k bpf.ViewKey, cell uint32) {
	h.maps.Views[k] = cell
	h.viewOf[cell] = k
	delete(h.orphans, cell)
	h.at(k.Cell).views[k.Group] = cell
	h.use(k.Group, 1)
}

func (h *Have) delView(k bpf.ViewKey) {
	cell, ok := h.maps.Views[k]
	if !ok {
		return
	}
	delete(h.maps.Views, k)
	delete(h.viewOf, cell)
	u := h.at(k.Cell)
	delete(u.views, k.Group)
	h.forget(u)
	h.use(k.Group, -1)
	h.orphans[cell] = true
}

func (h *Have) setBackendCell(index uint32, c bpf.BackendCell) {
	old := h.maps.BackendCells[index]
	h.maps.BackendCells[index] = c
	b := h.maps.Backends[index]
	if c.State != bpf.BackendFree {
		h.at(b.Cell).backends[b.Addr] = index
		return
	}
	if old.State != bpf.BackendFree {
		u := h.at(b.Cell)
		if u.backends[b.Addr] == index {
			delete(u.backends, b.Addr)
		}
		h.forget(u)
		h.limbo = append(h.limbo, limbo{limboBackend, index})
	}
}

func (h *Have) setGroup(index uint32, g bpf.Group) {
	if old := h.maps.Groups[index]; old.Name != "" && h.groups[old.Name] == index {
		delete(h.groups, old.Name)
	}
	if g.Name == "" {
		delete(h.maps.Groups, index)
		return
	}
	h.maps.Groups[index] = g
	h.groups[g.Name] = index
}

func (h *Have) setCgroup(id uint64, r bpf.Rule) {
	h.delCgroup(id)
	h.maps.Cgroups[id] = r
	h.use(r.Group, 1)
	tally(h.callers, r.Group, 1)
	tally(h.nodeUse, r.Node, 1)
}

func (h *Have) delCgroup(id uint64) {
	old := h.maps.Cgroups[id]
	h.use(old.Group, -1)
	tally(h.callers, old.Group, -1)
	tally(h.nodeUse, old.Node, -1)
	delete(h.maps.Cgroups, id)
}

func (h *Have) setExpect(k bpf.ExpectKey, r bpf.Rule) {
	h.use(h.maps.Expect[k].Group, -1)
	h.use(r.Group, 1)
	h.maps.Expect[k] = r
}

func (h *Have) setPattern(k bpf.PatternKey, p bpf.Pattern) {
	h.use(h.maps.Patterns[k].Rule.Group, -1)
	h.use(p.Rule.Group, 1)
	h.maps.Patterns[k] = p
}

// use counts what names a group.
func (h *Have) use(group uint32, n int) { tally(h.groupUse, group, n) }

// tally counts by index, of which 0 stands for none.
func tally(m map[uint32]int, index uint32, n int) {
	if index == 0 {
		return
	}
	if m[index] += n; m[index] <= 0 {
		delete(m, index)
	}
}
