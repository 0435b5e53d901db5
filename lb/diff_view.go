package lb

import (
	"maps"
	"slices"

	"github.com/slicelb/slicelb/bpf"
)

// findUnseen finds the views of groups that are not wanted any more, and that no
// cgroup names.
func (v *vipPlan) findUnseen() {
	for group := range v.have.views {
		name := v.planner.have.maps.Groups[group].Name
		if _, wanted := v.groups[name]; !wanted && v.planner.have.callers[group] == 0 {
			if v.unseen == nil {
				v.unseen = map[uint32]bool{}
			}
			v.unseen[group] = true
		}
	}
}

// planViews makes and flips the views. A group that loses its view is answered
// as the default says before the entry goes: the default cell is asked first,
// and a program that read its old word may still look for the view.
func (v *vipPlan) planViews() error {
	h := v.planner.have
	keep := make(map[uint32]bool, len(v.want.Views))
	for _, view := range v.want.Views {
		group := v.groups[view.Group]
		keep[group] = true
		if cell, ok := v.have.views[group]; ok {
			v.flip(cell, view.Outcome, false)
			continue
		}
		if err := v.putView(view.Group, group, view.Outcome); err != nil {
			return err
		}
	}
	if err := v.planTransits(keep); err != nil {
		return err
	}
	if uint64(len(h.maps.Views))+uint64(len(keep)) > uint64(h.limits.Views) {
		if n := v.viewsAfter(); n > uint64(h.limits.Views) {
			return v.full("views", h.limits.Views, v.planner.want.need.views, v.String())
		}
	}
	for _, group := range slices.Sorted(maps.Keys(v.have.views)) {
		if keep[group] {
			continue
		}
		v.rest = true
		if !v.unseen[group] {
			v.flip(v.have.views[group], v.want.Default, false)
		}
		v.later(bpf.DelView{Key: bpf.ViewKey{Cell: v.cell, Group: group}})
	}
	return nil
}

// putView makes a view.
func (v *vipPlan) putView(name string, group uint32, o Outcome) error {
	cell, err := v.newCell()
	if err != nil {
		return err
	}
	v.do(bpf.SetCellInfo{Index: cell, Info: bpf.CellInfo{
		VIP: v.want.Name, Group: name, Family: v.want.Family, Of: v.cell}})
	v.flip(cell, o, false)
	v.do(bpf.PutView{Key: bpf.ViewKey{Cell: v.cell, Group: group}, Cell: cell})
	return nil
}

// viewsAfter is how many views there are after the writes so far.
func (v *vipPlan) viewsAfter() uint64 {
	n := uint64(len(v.planner.have.maps.Views))
	for _, w := range v.plan.Writes {
		if _, ok := w.(bpf.PutView); ok {
			n++
		}
	}
	return n
}
