package daemon

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/lb"
)

// What groups called is listed by VIP and group. The daemon's own calls are not
// told, and calls to networks apart from those to VIPs.
func TestCallsOf(t *testing.T) {
	n := api.Counters{Connects: 1}
	denied := api.Counters{Denied: 2}
	c := &counted{calls: map[pair]api.Counters{
		{"db", "web"}:         n,
		{"db", lb.HostGroup}:  denied,
		{"a", "web"}:          n,
		{"a", lb.DaemonGroup}: n,
		{"", "web"}:           denied,
		{"", "jobs"}:          n,
		{"", lb.DaemonGroup}:  denied,
	}}
	if diff := cmp.Diff([]api.Calls{
		{Group: "web", VIP: "a", Counters: n},
		{Group: "host", VIP: "db", Counters: denied},
		{Group: "web", VIP: "db", Counters: n},
	}, callsOf(c, toVIPs)); diff != "" {
		t.Errorf("to VIPs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]api.Calls{{Group: "web", Counters: denied}}, callsOf(c, deniedNetworks)); diff != "" {
		t.Errorf("denied to networks (-want +got):\n%s", diff)
	}
}
