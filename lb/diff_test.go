package lb

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// A process that was killed between a group's name and its word leaves a word that
// does not fit: it is set again.
func TestStaleGroup(t *testing.T) {
	web := bpf.Group{Name: "web", Translate: true}
	stale := web
	stale.Stale = true
	h := NewHave(&bpf.Dump{
		Groups: map[uint32]bpf.Group{0: {Name: HostGroup, Translate: true}, 1: stale},
	}, lbtest.DefaultLimits, time.Time{})
	want := &State{Groups: []Group{{Name: "web", Translate: true}}}
	plan, err := Diff(h, want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]bpf.Write{bpf.SetGroup{Index: 1, Group: web}}, plan.Writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	for _, w := range plan.Writes {
		h.write(w)
	}
	if plan, err = Diff(h, want); err != nil || len(plan.Writes) > 0 {
		t.Errorf("again: %v, %v", plan.Writes, err)
	}
}
