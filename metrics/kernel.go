package metrics

// kernel is the data plane.
var kernel = []family{
	{Name: "slicelb_attached", Type: gauge,
		Help:    "1 while the hooks are attached: from when a VIP, a policy or a strict group is first configured, until the service is stopped, also when the last has gone.",
		collect: one(func(r *Reading) float64 { return truth(r.Status.DataPlane.Attached) })},
	{Name: "slicelb_kernel_features_missing", Type: gauge,
		Help:    "What this kernel lacks and slicelb would use, as the command doctor lists it.",
		collect: one(func(r *Reading) float64 { return float64(len(r.Status.DataPlane.Missing)) })},
	{Name: "slicelb_table_entries", Type: gauge, Labels: []string{"table"},
		Help:    "What is in a table of the data plane.",
		collect: tables(func(t *Table) uint64 { return t.Used })},
	{Name: "slicelb_table_capacity_entries", Type: gauge, Labels: []string{"table"},
		Help:    "What a table of the data plane holds at most.",
		collect: tables(func(t *Table) uint64 { return t.Capacity })},
	{Name: "slicelb_sockets_terminated_total", Type: counter,
		Help:    "Sockets that were closed because their backend is gone, or because policy denies them.",
		collect: one(func(r *Reading) float64 { return float64(r.Status.DataPlane.Sockets.Closed) })},
	{Name: "slicelb_sockets_stuck", Type: gauge,
		Help:    "Sockets whose backend is gone, or that policy denies, and that cannot be closed: they are in network namespaces that the daemon may not enter.",
		collect: one(func(r *Reading) float64 { return float64(r.Status.DataPlane.Sockets.Stuck) })},
	{Name: "slicelb_kernel_events_total", Type: counter, Labels: []string{"event"},
		Help:    "What the programs counted beside calls, since the tables were made: see the documentation for each event.",
		collect: words(func(r *Reading) map[string]uint64 { return r.Status.DataPlane.Events })},
}

func tables(f func(*Table) uint64) func(*Reading, emit) {
	return func(r *Reading, emit emit) {
		for i := range r.Tables {
			emit(float64(f(&r.Tables[i])), r.Tables[i].Name)
		}
	}
}
