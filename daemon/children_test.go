package daemon

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/metrics"
	"github.com/slicelb/slicelb/unitwatch"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// Split children are told by their groups' names, over both families of a VIP; who
// is gone, or not counted, is not.
func TestChildCalls(t *testing.T) {
	split := &anchor.Match{Group: "jobs", Split: true}
	snap := &unitwatch.Snapshot{Cgroups: []unitwatch.Cgroup{
		{ID: 1, Path: "/", Match: &anchor.Match{}},
		{ID: 10, Path: "/jobs.slice", Match: &anchor.Match{Group: "jobs", Anchor: true}, Group: "jobs"},
		{ID: 1<<40 | 11, Path: "/jobs.slice/a.scope", Match: split, Group: "jobs/a.scope"},
		{ID: 12, Path: "/jobs.slice/0a1b", Match: split, Group: "jobs/db"},
		{ID: 13, Path: "/jobs.slice/c.scope", Match: split, Group: "jobs/c.scope"},
		{ID: 14, Path: "/one.slice/d.scope", Match: &anchor.Match{Group: "one", Split: true}, Group: "one/d.scope"},
	}}
	counted := bpf.Rule{Group: 1, Split: true, Counted: true}
	d := &bpf.Dump{
		CellInfos: map[uint32]bpf.CellInfo{1: {VIP: "db", Family: 4}, 2: {VIP: "db", Family: 6}},
		Cgroups: map[uint64]bpf.Rule{
			10: {Group: 1}, 1<<40 | 11: counted, 12: counted, 13: {Group: 1, Split: true}, 14: {Group: 2, Split: true},
			15: counted, // made since the snapshot, or gone
		},
	}
	key := func(cell uint32, id uint64) bpf.ViewKey { return bpf.ViewKey{Cell: cell, Group: bpf.ChildOf(id)} }
	n := &bpf.CounterSnapshot{Children: map[bpf.ViewKey]bpf.Counters{
		key(1, 1<<40|11): {Connects: 1}, key(2, 1<<40|11): {Connects: 2, Flows: 3},
		key(bpf.NetworksCell, 1<<40|11): {Denied: 4},
		key(2, 12):                      {Rejected: 5},
		key(1, 13):                      {Passed: 6}, // counted no more
		key(1, 15):                      {Passed: 7},
	}}
	want := []metrics.ChildCalls{
		{Calls: api.Calls{Group: "jobs", Counters: api.Counters{Denied: 4}}, Child: "a.scope"},
		{Calls: api.Calls{Group: "jobs", VIP: "db", Counters: api.Counters{Connects: 3, Flows: 3}}, Child: "a.scope"},
		{Calls: api.Calls{Group: "jobs", VIP: "db", Counters: api.Counters{Rejected: 5}}, Child: "db"},
	}
	if diff := cmp.Diff(want, childCalls(snap, d, n)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	cfg, err := config.Parse("test", []byte(`
[group.jobs]
slices = ["jobs.slice"]
split = "*"
split_metrics = 2
[group.idle]
slices = ["idle.slice"]
split = "*"
split_metrics = 1
[group.one]
slices = ["one.slice"]
split = "*"
`))
	if err != nil {
		t.Fatal(err)
	}
	if 2*config.MaxSplitCounters != bpf.Pairs {
		t.Errorf("split children may have %d of %d pairs, not half", config.MaxSplitCounters, bpf.Pairs)
	}
	if got := uncounted(cfg, snap, d); !maps.Equal(got, map[string]int{"jobs": 1, "idle": 0}) {
		t.Errorf("without metrics: %v", got)
	}
}
