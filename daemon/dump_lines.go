package daemon

import (
	"slices"

	"github.com/slicelb/slicelb/bpf"
)

// dumpLines is a dump as the writes that would make it, sorted: the lines of
// logs and errors, so that one can be found by the other.
func dumpLines(d *bpf.Dump) []string {
	lines := []string{}
	add := func(w bpf.Write) { lines = append(lines, w.String()) }
	for k, index := range d.Frontends {
		add(bpf.PutFrontend{Key: k, Index: index})
	}
	for index, ref := range d.FrontendRefs {
		add(bpf.SetFrontendRef{Index: index, Ref: ref})
	}
	for index, cell := range d.Cells {
		add(bpf.SetCell{Index: index, Cell: cell})
	}
	for index, info := range d.CellInfos {
		add(bpf.SetCellInfo{Index: index, Info: info})
	}
	for k, cell := range d.Views {
		add(bpf.PutView{Key: k, Cell: cell})
	}
	for index, b := range d.Backends {
		add(bpf.SetBackend{Index: index, Backend: b})
	}
	for index, cell := range d.BackendCells {
		add(bpf.SetBackendCell{Index: index, Cell: cell})
	}
	for base, slots := range d.Slots {
		add(bpf.SetSlots{Base: base, Slots: slots})
	}
	for index, g := range d.Groups {
		add(bpf.SetGroup{Index: index, Group: g})
	}
	for id, r := range d.Cgroups {
		add(bpf.PutCgroup{ID: id, Rule: r})
	}
	for k, r := range d.Expect {
		add(bpf.PutExpect{Key: k, Rule: r})
	}
	for k, p := range d.Patterns {
		add(bpf.PutPattern{Key: k, Pattern: p})
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}
