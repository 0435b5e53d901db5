package bpf

// limitsOf are the capacities of tables, by the entries of each map.
func limitsOf(entries func(name string) uint32) Limits {
	return Limits{
		Frontends: entries(slicelbMapFrontends),
		Cells:     entries(slicelbMapCells),
		Views:     entries(slicelbMapViews),
		Backends:  entries(slicelbMapBackends),
		Slots:     entries(slicelbMapSlots) * slotsPerElem,
		Groups:    entries(slicelbMapGroups),
		Cgroups:   entries(slicelbMapCgroups),
		Expect:    entries(slicelbMapExpect),

		PolicyLines: entries(slicelbMapPolicyLines),
	}
}

// LimitsFor are the capacities that New gives its maps. It asks no kernel.
func LimitsFor(opts Options) (Limits, error) {
	spec, err := newSpec()
	if err != nil {
		return Limits{}, err
	}
	if err := size(spec, opts); err != nil {
		return Limits{}, err
	}
	return limitsOf(func(name string) uint32 { return spec.Maps[name].MaxEntries }), nil
}
