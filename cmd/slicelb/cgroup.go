package main

import (
	"errors"
	"fmt"

	"github.com/slicelb/slicelb/unitwatch"
)

// findRoot is the folder that --cgroup-root names, or where cgroup2 is mounted.
func (g *globals) findRoot() (unitwatch.Root, error) {
	root, err := unitwatch.OpenRoot(g.cgroupRoot)
	if err != nil {
		return root, refused(err)
	}
	return root, nil
}

// refused adds what to do about a host that cannot be served, and the status of a
// bad configuration, so that the unit does not try for ever.
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
		// It was named: what is found is one.
		hint = "leave it out to have cgroup2 found"
		if path, err := unitwatch.FindRoot(); err == nil {
			hint = "cgroup2 is mounted at " + path + "; leave the option out to have it found"
		}
		return &exitError{code: exitUsage, err: fmt.Errorf("--cgroup-root %s: not a cgroup2 filesystem", root.Path), hint: hint}
	case unitwatch.NotAccessible:
		return &exitError{code: exitFailed, err: err}
	}
	return &exitError{code: exitBadConfig, err: err, hint: hint}
}
