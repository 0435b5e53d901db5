package metrics

import (
	"maps"
	"slices"
	"strconv"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
)

// Words of the label verdict, those of api.Counters.
var verdicts = []string{"connects", "flows", "passed", "rejected", "denied"}

func byVerdict(c api.Counters) []uint64 {
	return []uint64{c.Connects, c.Flows, c.Passed, c.Rejected, c.Denied}
}

// serving is what callers get.
var serving = []family{
	{Name: "slicelb_vip_calls_total", Type: counter, Labels: []string{"vip", "verdict"},
		Help: "Calls to a VIP by what they got: connects (translated), flows (backends chosen for unconnected UDP), passed (left untouched), rejected (EHOSTUNREACH), denied (EPERM, by policy).",
		collect: func(r *Reading, emit emit) {
			for i := range r.Status.VIPs {
				v := &r.Status.VIPs[i]
				for k, n := range byVerdict(v.Counters) {
					emit(float64(n), v.Name, verdicts[k])
				}
			}
		}},
	{Name: "slicelb_group_calls_total", Type: counter, Labels: []string{"group", "vip", "verdict"},
		Help: "The same by the caller's group, for pairs of group and VIP that have called; the group host is every caller in no group.",
		collect: func(r *Reading, emit emit) {
			for _, c := range r.Calls {
				for k, n := range byVerdict(c.Counters) {
					emit(float64(n), c.Group, c.VIP, verdicts[k])
				}
			}
		}},
	{Name: "slicelb_group_network_denied_total", Type: counter, Labels: []string{"group"},
		Help: "Calls to networks that rules of the policy name, beside VIPs, that were denied (EPERM), by the caller's group; for groups that were denied one.",
		collect: func(r *Reading, emit emit) {
			for _, c := range r.Networks {
				emit(float64(c.Counters.Denied), c.Group)
			}
		}},
	{Name: "slicelb_split_calls_total", Type: counter, Labels: []string{"group", "child", "vip", "verdict"},
		Help: "The calls of single split children, of groups with split_metrics; the metrics of their group have them, too. What went away is absent.",
		collect: func(r *Reading, emit emit) {
			for _, c := range r.Children {
				if c.VIP == "" {
					continue
				}
				for k, n := range byVerdict(c.Counters) {
					emit(float64(n), c.Group, prose.Foreign(c.Child), c.VIP, verdicts[k])
				}
			}
		}},
	{Name: "slicelb_split_network_denied_total", Type: counter, Labels: []string{"group", "child"},
		Help: "Calls of single split children to networks that rules of the policy name, beside VIPs, that were denied (EPERM).",
		collect: func(r *Reading, emit emit) {
			for _, c := range r.Children {
				if c.VIP == "" && c.Counters.Denied > 0 {
					emit(float64(c.Counters.Denied), c.Group, prose.Foreign(c.Child))
				}
			}
		}},
	{Name: "slicelb_split_uncounted", Type: gauge, Labels: []string{"group"},
		Help: "Split children of a group with split_metrics that have no metrics of their own: there are more than it says.",
		collect: func(r *Reading, emit emit) {
			for _, group := range slices.Sorted(maps.Keys(r.Uncounted)) {
				emit(float64(r.Uncounted[group]), group)
			}
		}},
	{Name: "slicelb_policy_rule_calls_total", Type: counter, Labels: []string{"rule", "action"},
		Help: "Calls that a rule of the policy has decided since this policy is in force, by the rule's number in the command policy list; for rules that have decided one.",
		collect: func(r *Reading, emit emit) {
			for i, rule := range r.Rules {
				if rule.Hits > 0 {
					emit(float64(rule.Hits), strconv.Itoa(i+1), rule.Action)
				}
			}
		}},
	{Name: "slicelb_policy_rules", Type: gauge,
		Help:    "Rules of the policy.",
		collect: one(func(r *Reading) float64 { return float64(r.Status.Policy.Rules) })},
	{Name: "slicelb_backend_calls_total", Type: counter, Labels: []string{"vip", "backend", "verdict"},
		Help: "Calls that were sent to a backend of a VIP: connects and flows.",
		collect: backends(func(b *api.Backend, emit emit) {
			emit(float64(b.Counters.Connects), b.VIP, b.Address, "connects")
			emit(float64(b.Counters.Flows), b.VIP, b.Address, "flows")
		})},
	{Name: "slicelb_vip_backends", Type: gauge, Labels: []string{"vip", "state"},
		Help: "Backends of a VIP, those of its views among them, by what the kernel has: active, draining, down, or pending.",
		collect: func(r *Reading, emit emit) {
			states := []string{"active", "draining", "down", "pending"}
			for i := range r.Status.VIPs {
				n := map[string]int{}
				eachBackend(&r.Status.VIPs[i], func(b *api.Backend) { n[b.State]++ })
				for _, s := range states {
					emit(float64(n[s]), r.Status.VIPs[i].Name, s)
				}
			}
		}},
	{Name: "slicelb_vip_up_backends", Type: gauge, Labels: []string{"vip"},
		Help: "Backends of a VIP's own that take new connections.",
		collect: func(r *Reading, emit emit) {
			for i := range r.Status.VIPs {
				emit(float64(r.Status.VIPs[i].Up), r.Status.VIPs[i].Name)
			}
		}},
	{Name: "slicelb_vip_up", Type: gauge, Labels: []string{"vip", "family"},
		Help: "1 while backends of an address family (4 or 6) of a VIP take new connections, 0 while callers get what when_down says; for families that backends, or units, are configured for.",
		collect: func(r *Reading, emit emit) {
			for i := range r.Status.VIPs {
				for _, f := range r.Status.VIPs[i].Families {
					emit(truth(f.Up > 0), r.Status.VIPs[i].Name, strconv.Itoa(f.Family))
				}
			}
		}},
	{Name: "slicelb_backend_up", Type: gauge, Labels: []string{"vip", "backend"},
		Help: "1 while a backend is active in the kernel.",
		collect: backends(func(b *api.Backend, emit emit) {
			emit(truth(b.State == "active"), b.VIP, b.Address)
		})},
	{Name: "slicelb_backend_live_sockets", Type: gauge, Labels: []string{"vip", "backend"},
		Help: "Open sockets that a VIP sent to a backend.",
		collect: backends(func(b *api.Backend, emit emit) {
			emit(float64(b.Live), b.VIP, b.Address)
		})},
}

// backends calls f once for each backend of each VIP: one that a view shares
// with its VIP is one backend.
func backends(f func(*api.Backend, emit)) func(*Reading, emit) {
	return func(r *Reading, emit emit) {
		for i := range r.Status.VIPs {
			eachBackend(&r.Status.VIPs[i], func(b *api.Backend) { f(b, emit) })
		}
	}
}

func eachBackend(v *api.VIP, f func(*api.Backend)) {
	seen := make(map[string]bool, len(v.Backends))
	each := func(list []api.Backend) {
		for i := range list {
			if !seen[list[i].Address] {
				seen[list[i].Address] = true
				f(&list[i])
			}
		}
	}
	each(v.Backends)
	for i := range v.For {
		each(v.For[i].Backends)
	}
}
