package metrics

import (
	"time"

	"github.com/slicelb/slicelb/api"
)

// process is the daemon itself.
var process = []family{
	{Name: "slicelb_build_info", Type: gauge, Labels: []string{"version", "goversion"},
		Help:    "1, with what runs as labels.",
		collect: func(r *Reading, emit emit) { emit(1, r.Status.Version, r.GoVersion) }},
	{Name: "slicelb_ready", Type: gauge,
		Help:    "1 once every VIP is in the kernel.",
		collect: one(func(r *Reading) float64 { return truth(r.Ready) })},
	{Name: "slicelb_problems", Type: gauge,
		Help:    "How many problems the command status lists; 0 = all is well.",
		collect: one(func(r *Reading) float64 { return float64(len(r.Status.Problems)) })},
	{Name: "slicelb_config_last_reload_successful", Type: gauge,
		Help:    "0 while the newest reload has failed.",
		collect: one(func(r *Reading) float64 { return truth(r.Status.Config.LastError == "") })},
	{Name: "slicelb_config_loaded_timestamp_seconds", Type: gauge,
		Help:    "When the configuration that runs was loaded.",
		collect: moment(func(r *Reading) time.Time { return r.Status.Config.Loaded })},
	{Name: "slicelb_config_last_good", Type: gauge,
		Help:    "1 while the files have errors and what an earlier process ran is served.",
		collect: one(func(r *Reading) float64 { return truth(r.Status.Config.LastGood) })},
	{Name: "slicelb_store_descriptors", Type: gauge,
		Help:    "Descriptors that systemd keeps over restarts.",
		collect: one(func(r *Reading) float64 { return float64(r.Status.DataPlane.Held.Count) })},
	{Name: "slicelb_store_descriptors_wanted", Type: gauge,
		Help:    "Descriptors that belong there.",
		collect: one(func(r *Reading) float64 { return float64(r.Status.DataPlane.Held.Want) })},
	{Name: "slicelb_store_complete", Type: gauge,
		Help:    "1 while the data plane outlives the process.",
		collect: one(func(r *Reading) float64 { return truth(r.Status.DataPlane.Held.Store) })},
	{Name: "slicelb_reconcile_duration_seconds", Type: histogram,
		Help:    "From a new state to the last write that calls can notice.",
		latency: func(r *Reading) *api.Latency { return &r.Reconciled }},
	{Name: "slicelb_reconcile_errors_total", Type: counter,
		Help:    "Attempts to bring the kernel to a state that failed.",
		collect: one(func(r *Reading) float64 { return float64(r.Reconciler.Errors) })},
	{Name: "slicelb_reconcile_writes_total", Type: counter,
		Help:    "Writes to the maps, those that free what was replaced among them.",
		collect: one(func(r *Reading) float64 { return float64(r.Reconciler.Writes) })},
	{Name: "slicelb_reconcile_resyncs_total", Type: counter,
		Help:    "How often the maps were read to know what they hold.",
		collect: one(func(r *Reading) float64 { return float64(r.Reconciler.Resyncs) })},
	{Name: "slicelb_reconcile_success_timestamp_seconds", Type: gauge,
		Help:    "When the kernel was last brought to the newest state; absent before the first time.",
		collect: moment(func(r *Reading) time.Time { return r.Reconciler.LastSuccess })},
}

// moment tells a time in seconds since 1970; nothing of one that never was.
func moment(f func(*Reading) time.Time) func(*Reading, emit) {
	return func(r *Reading, emit emit) {
		if at := f(r); !at.IsZero() {
			emit(float64(at.UnixMilli()) / 1000)
		}
	}
}
