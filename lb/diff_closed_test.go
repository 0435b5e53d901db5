package lb

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// What the kernel has mapped in a closed directory stays, as far as it follows from that
// directory and there is room; who closes one keeps nothing outside of it. edge T26
func TestClosed(t *testing.T) {
	cgroup := func(id uint64, path string, r Rule) Cgroup { return Cgroup{ID: id, Path: path, Rule: r} }
	jobs, way, split := Rule{Group: "jobs", Node: 1}, Rule{Node: 2}, Rule{Group: "jobs", Split: true}
	state := func(closed bool, cgroups ...Cgroup) *State {
		s := &State{
			Groups: []Group{{Name: "deep"}, {Name: "jobs", Translate: true}, {Name: "web", Translate: true}},
			Edges: []Edge{
				{Node: 1, Rule: way}, {Node: 1, Pattern: true, Suffix: ".scope", Rule: split},
				{Node: 2, Rule: Rule{Node: 4}}, {Node: 2, Pattern: true, Suffix: ".scope", Rule: split},
				{Node: 3, Name: "web.slice", Rule: Rule{Group: "web"}}, {Node: 4, Name: "deep.slice", Rule: Rule{Group: "deep"}},
			},
			Complete: true, Cgroups: cgroups,
		}
		if closed {
			s.Closed = []Cgroup{cgroup(11, "/jobs.slice/own", way), cgroup(12, "/jobs.slice/zoo", way)}
		}
		return s
	}
	before := []Cgroup{
		cgroup(10, "/jobs.slice", jobs), cgroup(11, "/jobs.slice/own", way), cgroup(12, "/jobs.slice/zoo", way),
		cgroup(20, "/jobs.slice/own/x.scope", split), cgroup(21, "/jobs.slice/own/y/deep.slice", Rule{Group: "deep"}),
		cgroup(22, "/jobs.slice/zoo/x.scope", Rule{Group: "jobs", Split: true, Counted: true}), cgroup(23, "/jobs.slice/own2/x.scope", split),
		cgroup(24, "/web.slice", Rule{Group: "web"}), cgroup(25, "/jobs.slice/a.scope", split),
	}
	start := time.Unix(1<<30, 0)
	for _, test := range []struct {
		what    string
		closed  bool
		room    uint32 // in the table
		restart bool
		gone    []uint64
	}{
		{"nothing is closed", false, 64, false, []uint64{20, 21, 22, 23, 24, 25}},
		{"two are", true, 64, false, []uint64{23, 24, 25}},
		{"after a restart", true, 64, true, []uint64{24}},
		{"with room for one more", true, 4, false, []uint64{21, 22, 23, 24, 25}},
		{"with no room", true, 3, false, []uint64{20, 21, 22, 23, 24, 25}},
	} {
		t.Run(test.what, func(t *testing.T) {
			limits := lbtest.DefaultLimits
			h := NewHave(&bpf.Dump{}, limits, start)
			had := state(false, before...)
			plan, err := Diff(h, had)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range plan.Writes {
				h.write(w)
			}
			h.settle(plan, had)
			limits.Cgroups = test.room
			if h.limits = limits; test.restart {
				h = NewHave(&h.maps, limits, start)
			}
			want := state(test.closed, before[:3]...)
			want.Walked = start.Add(time.Hour)
			for range 2 { // what stays stays
				if plan, err = Diff(h, want); err != nil {
					t.Fatal(err)
				}
				var gone []uint64
				for _, w := range plan.Writes {
					if del, ok := w.(bpf.DelCgroup); ok {
						gone = append(gone, del.ID)
					}
					h.write(w)
				}
				h.settle(plan, want)
				slices.Sort(gone)
				if diff := cmp.Diff(test.gone, gone); diff != "" {
					t.Errorf("gone (-want +got):\n%s", diff)
				}
				test.gone = nil
			}
			if h.maps.Cgroups[22].Counted {
				t.Error("who closes a directory after the other has any number of children counted")
			}
			if !h.cgroupsDone {
				t.Error("what stays is judged each time, though nothing has changed")
			}
			// Open again, and empty.
			want = state(false, before[:3]...)
			want.Walked = start.Add(time.Hour)
			if plan, err = Diff(h, want); err != nil {
				t.Fatal(err)
			}
			for _, w := range plan.Writes {
				h.write(w)
			}
			if n := len(h.maps.Cgroups); n != 3 {
				t.Errorf("%d entries are left, want 3", n)
			}
		})
	}
}
