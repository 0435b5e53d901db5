package main

import (
	"os"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/unitwatch"
)

// Hosts that cannot be served say why. edge D26, edge D27
func TestRefusedHosts(t *testing.T) {
	for _, test := range []struct {
		err  error
		code int
		want string
	}{
		{&unitwatch.RootError{Reason: unitwatch.V1Only}, exitBadConfig, "unified_cgroup_hierarchy"},
		{&unitwatch.RootError{Reason: unitwatch.NoCgroups}, exitBadConfig, "mount cgroup2"},
		{&unitwatch.RootError{Reason: unitwatch.NotTheRoot, Path: "/sys/fs/cgroup"}, exitBadConfig, "--cgroup-root /sys/fs/cgroup"},
		{&unitwatch.RootError{Reason: unitwatch.NotCgroup2, Path: "/tmp"}, exitUsage, "--cgroup-root /tmp: not a cgroup2 filesystem"},
		{&unitwatch.RootError{Reason: unitwatch.NotAccessible, Path: "/x", Err: os.ErrPermission}, exitFailed, "permission denied"},
	} {
		var out strings.Builder
		code := report(&env{stderr: &out}, notServed(test.err))
		if code != test.code || !strings.Contains(out.String(), test.want) {
			t.Errorf("%v: exit %d, %q", test.err, code, out.String())
		}
	}
}
