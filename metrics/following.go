package metrics

import "github.com/slicelb/slicelb/api"

// following is how cgroups are followed.
var following = []family{
	{Name: "slicelb_group_anchors", Type: gauge, Labels: []string{"group"},
		Help:    "Cgroups of a group's configured slices that exist, and are mapped.",
		collect: groups(func(g *api.Group) int { return g.Anchors })},
	{Name: "slicelb_group_anchors_pending", Type: gauge, Labels: []string{"group"},
		Help:    "Configured slices of a group that match no cgroup now.",
		collect: groups(func(g *api.Group) int { return len(g.Pending) })},
	{Name: "slicelb_group_members", Type: gauge, Labels: []string{"group"},
		Help:    "Scopes, services and split children below a group's slices.",
		collect: groups(func(g *api.Group) int { return g.Members })},
	{Name: "slicelb_watcher_mode", Type: gauge, Labels: []string{"mode"},
		Help: "1 for what cgroups are followed by: bus (systemd's signals and cgroupfs) or cgroupfs-only.",
		collect: func(r *Reading, emit emit) {
			bus := r.Status.Tracking.Mode == "bus"
			emit(truth(bus), "bus")
			emit(truth(!bus), "cgroupfs-only")
		}},
	{Name: "slicelb_watcher_complete", Type: gauge,
		Help:    "1 while every directory could be looked at.",
		collect: one(func(r *Reading) float64 { return truth(r.Status.Tracking.Complete) })},
	{Name: "slicelb_watcher_resyncs_total", Type: counter, Labels: []string{"cause"},
		Help:    "Looks at every directory, by cause.",
		collect: words(func(r *Reading) map[string]uint64 { return r.Causes })},
	{Name: "slicelb_watcher_resync_duration_seconds", Type: gauge,
		Help:    "How long the newest look at every directory took.",
		collect: one(func(r *Reading) float64 { return r.Status.Tracking.Resync.Took.Seconds() })},
	{Name: "slicelb_watcher_hints_total", Type: counter, Labels: []string{"source"},
		Help: "Hints to look somewhere: from the kernel's ring buffer, and signals from systemd.",
		collect: func(r *Reading, emit emit) {
			emit(source(r, "kernel"), "kernel")
			emit(source(r, "signals"), "systemd")
		}},
	{Name: "slicelb_watcher_hints_dropped_total", Type: counter, Labels: []string{"reason"},
		Help: "Hints that were not followed: ignored (nothing that matters lies there), forged (a signal that is not systemd's), malformed, unasked.",
		collect: func(r *Reading, emit emit) {
			emit(source(r, "kernel_ignored"), "ignored")
			emit(source(r, "signals_forged"), "forged")
			emit(source(r, "signals_malformed"), "malformed")
			emit(source(r, "messages_unasked"), "unasked")
		}},
	{Name: "slicelb_watcher_overflows_total", Type: counter,
		Help:    "How often a source of hints lost some; everything was looked at then.",
		collect: one(func(r *Reading) float64 { return source(r, "overflows") })},
	{Name: "slicelb_watcher_unannounced_total", Type: counter,
		Help:    "Directories that came or went without a hint, found by a periodic look.",
		collect: one(func(r *Reading) float64 { return source(r, "kernel_lost") })},
	{Name: "slicelb_watcher_looks_total", Type: counter,
		Help:    "Looks at single directories.",
		collect: one(func(r *Reading) float64 { return source(r, "looks") })},
	{Name: "slicelb_watcher_errors_total", Type: counter, Labels: []string{"what"},
		Help: "What went wrong while following: look (a directory could not be read), call (systemd did not answer).",
		collect: func(r *Reading, emit emit) {
			emit(source(r, "walk_errors"), "look")
			emit(source(r, "call_errors"), "call")
		}},
	{Name: "slicelb_watcher_bus_connects_total", Type: counter,
		Help:    "Connections to the message bus, the first included.",
		collect: one(func(r *Reading) float64 { return source(r, "connects") })},
	{Name: "slicelb_watcher_hint_to_map_seconds", Type: histogram,
		Help:    "From the kernel's event for a directory to the tables that know it. Anchors are in them before: the kernel maps those itself.",
		latency: func(r *Reading) *api.Latency { return &r.Status.Tracking.Mapped }},
}

func source(r *Reading, name string) float64 { return float64(r.Status.Tracking.Sources[name]) }

func groups(f func(*api.Group) int) func(*Reading, emit) {
	return func(r *Reading, emit emit) {
		for i := range r.Status.Groups {
			emit(float64(f(&r.Status.Groups[i])), r.Status.Groups[i].Name)
		}
	}
}
