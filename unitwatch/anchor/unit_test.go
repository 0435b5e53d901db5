package anchor

import (
	"strings"
	"testing"
)

func TestFromUnit(t *testing.T) {
	tests := []struct {
		unit, path, err string
	}{
		{unit: "web.slice", path: "/web.slice"},
		{unit: "a-b.slice", path: "/a.slice/a-b.slice"}, // edge T1
		{unit: "a-b-c.slice", path: "/a.slice/a-b.slice/a-b-c.slice"},
		{unit: "-.slice", path: "/"}, // edge T19
		// edge T19: an escaped dash separates nothing, and keeps its escape
		{unit: `foo\x2dbar.slice`, path: `/foo\x2dbar.slice`},
		{unit: `a-foo\x2dbar.slice`, path: `/a.slice/a-foo\x2dbar.slice`},
		// edge T19: names that could be control files
		{unit: "cpu.slice", path: "/_cpu.slice"},
		{unit: "cpu-a.slice", path: "/_cpu.slice/cpu-a.slice"},
		{unit: "cpu.a.slice", path: "/_cpu.a.slice"},
		{unit: "cpus.slice", path: "/cpus.slice"},
		{unit: "bpf-firewall.slice", path: "/bpf.slice/_bpf-firewall.slice"},
		{unit: "cgroup.slice", path: "/_cgroup.slice"},
		{unit: "cgroups.slice", path: "/cgroups.slice"},
		{unit: "_cpu.slice", path: "/__cpu.slice"},
		{unit: ".a.slice", path: "/_.a.slice"},
		{unit: "user-1000.slice", path: "/user.slice/user-1000.slice"},
		{unit: "a-*.slice", path: "/a.slice/a-*.slice"},
		{unit: "a-[b-d].slice", path: "/a.slice/a-[b-d].slice"},
		{unit: "x?.slice", path: "/x?.slice"},

		{unit: "web", err: "must end in"},
		{unit: "user@1000.service", err: "must end in"},
		{unit: "", err: "must end in"},
		{unit: ".slice", err: "nothing stands before"},
		{unit: "-a.slice", err: "dashes"},
		{unit: "a-.slice", err: "dashes"},
		{unit: "a--b.slice", err: "dashes"},
		{unit: "--.slice", err: "dashes"},
		{unit: "a/b.slice", err: "cannot stand"},
		{unit: "a b.slice", err: "cannot stand"},
		{unit: "a@b.slice", err: "cannot stand"},
		{unit: "ä.slice", err: "cannot stand"},
		{unit: "a[.slice", err: "class has no end"},
		{unit: strings.Repeat("a", 250) + ".slice", err: "longer"},
	}
	for _, tt := range tests {
		path, err := FromUnit(tt.unit)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("FromUnit(%q) = %q, %v; want an error with %q", tt.unit, path, err, tt.err)
			}
			continue
		}
		if err != nil || path != tt.path {
			t.Errorf("FromUnit(%q) = %q, %v; want %q", tt.unit, path, err, tt.path)
		}
	}
}

// edge T19
func TestUnitNameUndoesDirName(t *testing.T) {
	for _, unit := range []string{
		"web.slice", "cpu.slice", "_cpu.slice", "__x.slice", ".a.slice", "tasks", "cgroup.scope",
		`foo\x2dbar.slice`, "user@1000.service", "io.scope", "bpf-devices.slice", "memory.service",
	} {
		if got := UnitName(DirName(unit)); got != unit {
			t.Errorf("UnitName(DirName(%q)) = %q", unit, got)
		}
	}
}

// edge T19: what FromUnit gives is a pattern of that very directory.
func TestEscapedNamesMatchThemselves(t *testing.T) {
	for _, unit := range []string{`foo\x2dbar.slice`, "cpu.slice", "_cpu.slice", `a-x\x40y.slice`} {
		path, err := FromUnit(unit)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := Compile([]Group{{Name: "g", Patterns: []string{path}}})
		if err != nil {
			t.Fatal(err)
		}
		if m := walk(tree, path); m.Group != "g" || m.Pattern != path {
			t.Errorf("%s: %s is matched as %+v", unit, path, m)
		}
		if in := tree.Inexact(); len(in) > 0 {
			t.Errorf("%s: inexact: %q", unit, in)
		}
	}
}
