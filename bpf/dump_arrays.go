package bpf

import (
	"slices"
	"sync/atomic"
)

// arrays is what is used of the arrays, as it lies in them.
type arrays struct {
	frontendRefs []at[uint64]
	cells        []at[cellCopy]
	backends     []at[backendCopy]
	groups       []at[groupCopy]
	hostNetns    uint64
	policyWord   uint64
	policy       []policyLine // from where the word points
}

// at is an element and its index.
type at[T any] struct {
	index uint32
	T     T
}

type cellCopy struct {
	word, affinity uint64
	info           slicelbSlbCellInfo
	slots          []uint32
}

type backendCopy struct {
	backend slicelbSlbBackend
	word    uint64
}

type groupCopy struct {
	word uint64
	info slicelbSlbGroupInfo
}

// copyArrays ends what follow began, at one moment between two writes. It only
// copies: who writes waits for it.
func (d *Datapath) copyArrays(f *followed) *arrays {
	d.write.Lock()
	defer d.write.Unlock()
	delete(d.followed, f)
	var out arrays
	for i := range d.frontendRefs {
		if w := atomic.LoadUint64(&d.frontendRefs[i]); w != 0 {
			out.frontendRefs = append(out.frontendRefs, at[uint64]{uint32(i), w})
		}
	}
	for i := range d.cells {
		w := atomic.LoadUint64(&d.cells[i])
		if w == 0 && d.cellInfos[i].Family == 0 {
			continue
		}
		c := cellCopy{word: w, affinity: atomic.LoadUint64(&d.cellAffinity[i]), info: d.cellInfos[i]}
		if cell := decodeCell(w, 0); cell.Action == Balance && cell.Base+cell.Count <= uint32(len(d.slots)) {
			c.slots = slices.Clone(d.slots[cell.Base : cell.Base+cell.Count])
		}
		out.cells = append(out.cells, at[cellCopy]{uint32(i), c})
	}
	for i := range d.backends {
		if w := atomic.LoadUint64(&d.backendCells[i]); w != 0 || d.backends[i].Generation != 0 {
			out.backends = append(out.backends, at[backendCopy]{uint32(i), backendCopy{d.backends[i], w}})
		}
	}
	for i := range d.groups {
		if d.groupInfos[i].Name[0] != 0 {
			out.groups = append(out.groups, at[groupCopy]{uint32(i), groupCopy{atomic.LoadUint64(&d.groups[i]), d.groupInfos[i]}})
		}
	}
	out.hostNetns = atomic.LoadUint64(d.hostNetns)
	out.policyWord = atomic.LoadUint64(d.policyWord)
	if base := decodePolicyWord(out.policyWord).Base; base != 0 {
		lines, err := policyLinesAt(d.policyLines, base)
		if err != nil {
			d.opts.log().Warn("the policy cannot be read", "err", err)
		}
		out.policy = slices.Clone(lines)
	}
	return &out
}

func (d *Datapath) dumpArrays(a *arrays, out *Dump) {
	for _, r := range a.frontendRefs {
		out.FrontendRefs[r.index] = decodeFrontendRef(r.T)
	}
	for _, c := range a.cells {
		info := decodeCellInfo(c.T.info)
		if info.Family != 0 {
			out.CellInfos[c.index] = info
		}
		cell := decodeCell(c.T.word, c.T.affinity)
		if cell.Action == None && info.Family == 0 {
			continue
		}
		out.Cells[c.index] = cell
		if c.T.slots != nil {
			out.Slots[cell.Base] = c.T.slots
		}
	}
	for _, b := range a.backends {
		if backend := decodeBackend(b.T.backend); backend.Gen != 0 {
			out.Backends[b.index] = backend
		}
		if b.T.word != 0 {
			out.BackendCells[b.index] = decodeBackendCell(b.T.word)
		}
	}
	for _, g := range a.groups {
		out.Groups[g.index] = decodeGroup(g.T.word, g.T.info)
	}
	out.HostNetns = a.hostNetns
	out.PolicyWord = decodePolicyWord(a.policyWord)
	if a.policy == nil {
		return
	}
	if err := policyIsWhole(a.policy); err != nil {
		d.opts.log().Warn("the policy cannot be read", "err", err)
		return
	}
	out.PolicyLines, out.PolicySum = uint32(len(a.policy)), a.policy[0].W[policySum]
	out.Policy = decodePolicy(a.policy)
}
