package main

import (
	"errors"

	"github.com/slicelb/slicelb/unitwatch"
)

// cgroupRoot is the folder below which everything happens.
type cgroupRoot struct {
	Path       string
	Namespaced bool // it is not the hierarchy's own root
}

// findCgroupRoot takes the folder that was named, or the one where cgroup2 is
// mounted. A host that cannot be served is refused with the status of a bad
// configuration, so that the unit does not try for ever.
func findCgroupRoot(named string) (cgroupRoot, error) {
	path := named
	var err error
	if path == "" {
		if path, err = unitwatch.FindRoot(); err != nil {
			return cgroupRoot{}, refused(err)
		}
	}
	id, err := unitwatch.CheckRoot(path)
	if err != nil {
		return cgroupRoot{}, refused(err)
	}
	return cgroupRoot{Path: path, Namespaced: !unitwatch.IsHierarchyRoot(id)}, nil
}

func refused(err error) error {
	var root *unitwatch.RootError
	if !errors.As(err, &root) {
		return err
	}
	hint := ""
	switch root.Reason {
	case unitwatch.V1Only, unitwatch.NoCgroups:
		hint = "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 beside version 1 (hybrid)"
	case unitwatch.NotTheRoot:
		hint = "to serve the part that is visible here alone, name it: --cgroup-root " + root.Path
	case unitwatch.NotCgroup2:
		hint = "name the folder where cgroup2 is mounted with --cgroup-root"
	case unitwatch.NotAccessible:
		return &exitError{code: exitFailed, err: err}
	}
	return &exitError{code: exitBadConfig, err: err, hint: hint}
}
