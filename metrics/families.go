package metrics

import (
	"slices"
	"strconv"

	"github.com/slicelb/slicelb/api"
)

// Words of the label verdict, those of api.Counters.
var verdicts = []string{"connects", "flows", "passed", "rejected", "denied"}

func byVerdict(c api.Counters) []uint64 {
	return []uint64{c.Connects, c.Flows, c.Passed, c.Rejected, c.Denied}
}

// Families is every metric of slicelb's own.
var Families = slices.Concat(serving, kernel, following, checking, process)

// serving is what callers get.
var serving = []Family{
	{Name: "slicelb_vip_calls_total", Type: Counter, Labels: []string{"vip", "verdict"},
		Help: "Calls to a VIP by what they got: connects (translated), flows (backends chosen for unconnected UDP), passed (left untouched), rejected (EHOSTUNREACH), denied (EPERM, by policy).",
		collect: func(r *Reading, emit emit) {
			for i := range r.Status.VIPs {
				v := &r.Status.VIPs[i]
				for k, n := range byVerdict(v.Counters) {
					emit(float64(n), v.Name, verdicts[k])
				}
			}
		}},
	{Name: "slicelb_group_calls_total", Type: Counter, Labels: []string{"group", "vip", "verdict"},
		Help: "The same by the caller's group, for pairs of group and VIP that have called; the group host is every caller in no group.",
		collect: func(r *Reading, emit emit) {
			for _, c := range r.Calls {
				for k, n := range byVerdict(c.Counters) {
					emit(float64(n), c.Group, c.VIP, verdicts[k])
				}
			}
		}},
	{Name: "slicelb_group_network_denied_total", Type: Counter, Labels: []string{"group"},
		Help: "Calls to networks that rules of the policy name, beside VIPs, that were denied (EPERM), by the caller's group; for groups that were denied one.",
		collect: func(r *Reading, emit emit) {
			for _, c := range r.Networks {
				emit(float64(c.Counters.Denied), c.Group)
			}
		}},
	{Name: "slicelb_policy_rule_calls_total", Type: Counter, Labels: []string{"rule", "action"},
		Help: "Calls that a rule of the policy has decided since this policy is in force, by the rule's number in the command policy list; for rules that have decided one.",
		collect: func(r *Reading, emit emit) {
			for i, rule := range r.Rules {
				if rule.Hits > 0 {
					emit(float64(rule.Hits), strconv.Itoa(i+1), rule.Action)
				}
			}
		}},
	{Name: "slicelb_policy_rules", Type: Gauge, Labels: nil,
		Help:    "Rules of the policy.",
		collect: func(r *Reading, emit emit) { emit(float64(r.Status.Policy.Rules)) }},
	{Name: "slicelb_backend_calls_total", Type: Counter, Labels: []string{"vip", "backend", "verdict"},
		Help: "Calls that were sent to a backend of a VIP: connects and flows.",
		collect: backends(func(b *api.Backend, emit emit) {
			emit(float64(b.Counters.Connects), b.VIP, b.Address, "connects")
			emit(float64(b.Counters.Flows), b.VIP, b.Address, "flows")
		})},
	{Name: "slicelb_vip_backends", Type: Gauge, Labels: []string{"vip", "state"},
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
	{Name: "slicelb_vip_up_backends", Type: Gauge, Labels: []string{"vip"},
		Help: "Backends of a VIP's own that take new connections.",
		collect: func(r *Reading, emit emit) {
			for i := range r.Status.VIPs {
				emit(float64(r.Status.VIPs[i].Up), r.Status.VIPs[i].Name)
			}
		}},
	{Name: "slicelb_backend_up", Type: Gauge, Labels: []string{"vip", "backend"},
		Help: "1 while a backend is active in the kernel.",
		collect: backends(func(b *api.Backend, emit emit) {
			emit(truth(b.State == "active"), b.VIP, b.Address)
		})},
	{Name: "slicelb_backend_live_sockets", Type: Gauge, Labels: []string{"vip", "backend"},
		Help: "Open sockets that a VIP sent to a backend.",
		collect: backends(func(b *api.Backend, emit emit) {
			emit(float64(b.Live), b.VIP, b.Address)
		})},
}

// checking is what health checks say.
var checking = []Family{
	{Name: "slicelb_backend_check_up", Type: Gauge, Labels: []string{"vip", "backend"},
		Help:    "1 while a backend's health checks succeed, by fall and rise; only for those that are checked.",
		collect: checked(func(c *api.Check) float64 { return truth(c.State == "up") })},
	{Name: "slicelb_backend_checks_total", Type: Counter, Labels: []string{"vip", "backend"},
		Help:    "Health checks of a backend that have ended.",
		collect: checked(func(c *api.Check) float64 { return float64(c.Count) })},
	{Name: "slicelb_backend_check_duration_seconds", Type: Gauge, Labels: []string{"vip", "backend"},
		Help:    "How long the newest health check of a backend took.",
		collect: checked(func(c *api.Check) float64 { return c.Took.Seconds() })},
	{Name: "slicelb_health_checks_total", Type: Counter, Labels: []string{"result"},
		Help: "Health checks that have ended: passed, failed, or void where this host could not make them.",
		collect: func(r *Reading, emit emit) {
			h := &r.Health
			emit(float64(h.Checks-min(h.Checks, h.Failed+h.Void)), "passed")
			emit(float64(h.Failed), "failed")
			emit(float64(h.Void), "void")
		}},
	{Name: "slicelb_health_suspected_total", Type: Counter,
		Help:    "Health checks that a connect which the kernel saw fail brought forward.",
		collect: one(func(r *Reading) float64 { return float64(r.Health.Suspected) })},
	{Name: "slicelb_health_targets", Type: Gauge,
		Help:    "Backends that are checked.",
		collect: one(func(r *Reading) float64 { return float64(r.Health.Targets) })},
	{Name: "slicelb_health_late_seconds", Type: Gauge,
		Help:    "The longest delay of a health check's start in the last 10 seconds.",
		collect: one(func(r *Reading) float64 { return r.Health.Late.Seconds() })},
	{Name: "slicelb_health_stalled_seconds_total", Type: Counter,
		Help:    "How long the daemon did not run although health checks were due.",
		collect: one(func(r *Reading) float64 { return r.Health.Stalled.Seconds() })},
}

// process is the daemon itself.
var process = []Family{
	{Name: "slicelb_build_info", Type: Gauge, Labels: []string{"version", "goversion"},
		Help:    "1, with what runs as labels.",
		collect: func(r *Reading, emit emit) { emit(1, r.Status.Version, r.GoVersion) }},
	{Name: "slicelb_ready", Type: Gauge,
		Help:    "1 once every VIP is in the kernel.",
		collect: one(func(r *Reading) float64 { return truth(r.Ready) })},
	{Name: "slicelb_problems", Type: Gauge,
		Help:    "How many problems the command status lists; 0 = all is well.",
		collect: one(func(r *Reading) float64 { return float64(len(r.Status.Problems)) })},
	{Name: "slicelb_config_last_reload_successful", Type: Gauge,
		Help:    "0 while the newest reload has failed.",
		collect: one(func(r *Reading) float64 { return truth(r.Status.Config.LastError == "") })},
	{Name: "slicelb_config_loaded_timestamp_seconds", Type: Gauge,
		Help: "When the configuration that runs was loaded.",
		collect: func(r *Reading, emit emit) {
			if at := r.Status.Config.Loaded; !at.IsZero() {
				emit(float64(at.UnixMilli()) / 1000)
			}
		}},
	{Name: "slicelb_config_last_good", Type: Gauge,
		Help:    "1 while the files have errors and what an earlier process ran is served.",
		collect: one(func(r *Reading) float64 { return truth(r.Status.Config.LastGood) })},
	{Name: "slicelb_store_descriptors", Type: Gauge,
		Help:    "Descriptors that systemd keeps over restarts.",
		collect: one(func(r *Reading) float64 { return float64(r.Status.DataPlane.Held.Count) })},
	{Name: "slicelb_store_descriptors_wanted", Type: Gauge,
		Help:    "Descriptors that belong there.",
		collect: one(func(r *Reading) float64 { return float64(r.Status.DataPlane.Held.Want) })},
	{Name: "slicelb_store_complete", Type: Gauge,
		Help:    "1 while the data plane outlives the process.",
		collect: one(func(r *Reading) float64 { return truth(r.Status.DataPlane.Held.Store) })},
	{Name: "slicelb_reconcile_duration_seconds", Type: Histogram,
		Help:    "From a new state to the last write that calls can notice.",
		latency: func(r *Reading) *api.Latency { return &r.Reconciled }},
	{Name: "slicelb_reconcile_errors_total", Type: Counter,
		Help:    "Attempts to bring the kernel to a state that failed.",
		collect: one(func(r *Reading) float64 { return float64(r.Reconciler.Errors) })},
	{Name: "slicelb_reconcile_writes_total", Type: Counter,
		Help:    "Writes to the maps, those that free what was replaced among them.",
		collect: one(func(r *Reading) float64 { return float64(r.Reconciler.Writes) })},
	{Name: "slicelb_reconcile_resyncs_total", Type: Counter,
		Help:    "How often the maps were read to know what they hold.",
		collect: one(func(r *Reading) float64 { return float64(r.Reconciler.Resyncs) })},
	{Name: "slicelb_reconcile_success_timestamp_seconds", Type: Gauge,
		Help: "When the kernel was last brought to the newest state; absent before the first time.",
		collect: func(r *Reading, emit emit) {
			if at := r.Reconciler.LastSuccess; !at.IsZero() {
				emit(float64(at.UnixMilli()) / 1000)
			}
		}},
}

func one(f func(*Reading) float64) func(*Reading, emit) {
	return func(r *Reading, emit emit) { emit(f(r)) }
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
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

func checked(f func(*api.Check) float64) func(*Reading, emit) {
	return backends(func(b *api.Backend, emit emit) {
		if b.Check != nil {
			emit(f(b.Check), b.VIP, b.Address)
		}
	})
}
