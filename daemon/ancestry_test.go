package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// A process may outlive its cgroup, and a living cgroup may be called as if it
// were gone. Folders serve as cgroups here: what is asked is lstat's.
func TestAncestry(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"web.slice/a.scope", "web.slice/odd (deleted)"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		cgroup  string
		process bool
		want    string // "?" behind what is gone
	}{
		{"/", false, "/"},
		{"/web.slice/a.scope", false, "/web.slice/a.scope /web.slice /"},
		{"/web.slice/a.scope", true, "/web.slice/a.scope /web.slice /"},
		{"/web.slice/odd (deleted)", true, "/web.slice/odd (deleted) /web.slice /"},
		{"/web.slice/b.scope/c (deleted)", true, "/web.slice/b.scope/c? /web.slice/b.scope? /web.slice /"},
		{"/web.slice/b.scope", true, "/web.slice/b.scope? /web.slice /"}, // gone since it was read
		{"/ (deleted)", true, "/ (deleted)? /"},
		{"/web.slice/b.scope", false, "cgroup /web.slice/b.scope does not exist"},
		{"/web.slice/b.scope (deleted)", false, `cgroup "/web.slice/b.scope (deleted)" does not exist`},
		{"/file", true, "cgroup /file is no folder"},
		{"/file/x", false, "cgroup /file/x does not exist"},
		{strings.Repeat("/"+strings.Repeat("x", 250), 17), false, "cgroup " + strings.Repeat("/"+strings.Repeat("x", 250), 16) + " does not exist"},
		{"/" + strings.Repeat("x", 300), false, "cgroup /" + strings.Repeat("x", 300) + " does not exist"},
	} {
		line, err := ancestry(root, test.cgroup, test.process, nil)
		var parts []string
		for _, a := range line {
			if a.id == 0 {
				a.path += "?"
			}
			parts = append(parts, a.path)
		}
		got := strings.Join(parts, " ")
		if err != nil {
			got = err.Error()
			var e *api.Error
			if !errors.As(err, &e) || e.Code != api.NotFound {
				t.Errorf("%s: %v", test.cgroup, err)
			}
		}
		if got != test.want {
			t.Errorf("%s, process %t: %s, want %s", test.cgroup, test.process, got, test.want)
		}
	}
}

// A cgroup whose path is too long to be looked at by it is there all the same.
func TestAncestryOfLongPaths(t *testing.T) {
	root := t.TempDir()
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { unix.Close(fd) }()
	name := strings.Repeat("x", 250)
	for range 17 {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		below, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd = below
	}
	line, err := ancestry(root, strings.Repeat("/"+name, 17), true, nil)
	if err != nil || len(line) != 18 || line[0].id != hidden || line[2].id == hidden || line[2].id == 0 {
		t.Errorf("%d, %v", len(line), err)
	}
}

// Who decides, for callers in every situation.
func TestCaller(t *testing.T) {
	d := &bpf.Dump{
		Groups: map[uint32]bpf.Group{0: {Name: "host"}, 1: {Name: "web"}, 2: {Name: "jobs"}, 3: {Name: lb.DaemonGroup}},
		Cgroups: map[uint64]bpf.Rule{
			1: {Node: 3}, 10: {Group: 1, Node: 4}, 11: {Group: 1},
			20: {Group: 2, Node: 5}, 21: {Group: 2, Split: true}, 22: {Group: 2, Split: true}, 40: {Group: 3},
		},
	}
	snap := &unitwatch.Snapshot{Cgroups: []unitwatch.Cgroup{
		{ID: 1, Path: "/", Match: new(anchor.Match)},
		{ID: 10, Path: "/web.slice", Group: "web", Unit: "web.slice", Match: &anchor.Match{Group: "web", Anchor: true, Pattern: "/web.slice"}},
		{ID: 11, Path: "/web.slice/a.scope", Group: "web", Unit: "a.scope", Member: true, Match: new(anchor.Match)},
		{ID: 40, Path: "/web.slice/slicelb.service", Group: "web", Unit: "slicelb.service", Member: true, Match: new(anchor.Match)},
		{ID: 20, Path: "/jobs.slice", Group: "jobs", Match: &anchor.Match{Group: "jobs", Anchor: true, Pattern: "/jobs.slice"}},
		{ID: 21, Path: "/jobs.slice/x.scope", Group: "jobs/x.scope", Match: &anchor.Match{Group: "jobs", Split: true, Pattern: "*.scope"}},
	}}
	deep := func(levels int) []ancestor { // below a split child at level 32
		line := []ancestor{{"/jobs.slice", 20}, {"/", 1}}
		for at := "/jobs.slice"; len(line) < 32; {
			at += "/d"
			line = append([]ancestor{{at, 1000 + uint64(len(line))}}, line...)
		}
		line = append([]ancestor{{line[0].path + "/x.scope", 21}}, line...)
		for range levels {
			line = append([]ancestor{{line[0].path + "/e", 2000 + uint64(len(line))}}, line...)
		}
		return line
	}
	ways := strings.Repeat("- ", 30)
	for _, test := range []struct {
		name                    string
		line                    []ancestor
		group, decided, pattern string
		kinds, said             string
		gone                    bool
	}{
		{"far below a member", []ancestor{{"/web.slice/a.scope/c/d", 13}, {"/web.slice/a.scope/c", 12}, {"/web.slice/a.scope", 11}, {"/web.slice", 10}, {"/", 1}},
			"web", "/web.slice/a.scope", "", "- - member anchor way", "group web, by /web.slice/a.scope", false},
		{"the daemon, in a group", []ancestor{{"/web.slice/slicelb.service", 40}, {"/web.slice", 10}, {"/", 1}},
			"@daemon", "/web.slice/slicelb.service", "", "member anchor way", "group @daemon, by /web.slice/slicelb.service", false},
		{"nobody's", []ancestor{{"/system.slice", 30}, {"/", 1}}, "host", "", "", "- way", "no group covers it", false},
		{"a split child", []ancestor{{"/jobs.slice/x.scope", 21}, {"/jobs.slice", 20}, {"/", 1}},
			"jobs/x.scope", "/jobs.slice/x.scope", "*.scope", "split anchor way", "group jobs/x.scope", false},
		{"made a moment ago", []ancestor{{"/jobs.slice/y.scope", 22}, {"/jobs.slice", 20}, {"/", 1}},
			"jobs", "/jobs.slice/y.scope", "", "new anchor way", "group jobs, by /jobs.slice/y.scope", false},
		{"a split child at level 32", deep(0),
			"jobs/x.scope", "/jobs.slice" + strings.Repeat("/d", 30) + "/x.scope", "*.scope", "split " + ways + "anchor way", "group jobs/x.scope", false},
		{"below that, where the programs do not look", deep(2),
			"jobs", "/jobs.slice", "/jobs.slice", "- - split " + ways + "anchor way", "group jobs, by /jobs.slice", false},
		{"in one that is closed", []ancestor{{"/jobs.slice/own/z.scope", hidden}, {"/jobs.slice/own", 23}, {"/jobs.slice", 20}, {"/", 1}},
			"jobs", "/jobs.slice", "/jobs.slice", "- - anchor way", "group jobs, by /jobs.slice; cgroup /jobs.slice/own may not be looked into", false},
		{"its cgroup is gone", []ancestor{{"/web.slice/z.scope", 0}, {"/web.slice", 10}, {"/", 1}},
			"web", "/web.slice", "/web.slice", "- anchor way", "this cgroup is gone; group web, by /web.slice", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			x := callerOf(d, test.line, 0, snap).explanation()
			var kinds []string
			for _, a := range x.Ancestors {
				if a.Kind == "" {
					a.Kind = "-"
				}
				kinds = append(kinds, a.Kind)
			}
			want := []string{test.group, test.decided, test.pattern, test.kinds}
			if diff := cmp.Diff(want, []string{x.Group, x.Decided, x.Pattern, strings.Join(kinds, " ")}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			said := x.Steps[0].Found
			for _, s := range x.Steps[1:] {
				said += "; " + s.Look + " " + s.Found
			}
			if !strings.Contains(said, test.said) || x.Gone != test.gone {
				t.Errorf("%q, gone %t", said, x.Gone)
			}
		})
	}
}

// Levels count from the hierarchy's root, below which the cgroup root may lie.
func TestCallerBelowADeepRoot(t *testing.T) {
	d := &bpf.Dump{
		Groups:  map[uint32]bpf.Group{1: {Name: "jobs"}, 2: {Name: "inner"}},
		Cgroups: map[uint64]bpf.Rule{20: {Group: 1}, 21: {Group: 2}},
	}
	line := []ancestor{{"/jobs.slice/x.scope/c", 22}, {"/jobs.slice/x.scope", 21}, {"/jobs.slice", 20}, {"/", 1}}
	for root, want := range map[int]string{0: "inner", 29: "inner", 30: "jobs", 31: "host"} {
		if c := callerOf(d, line, root, nil); c.name != want {
			t.Errorf("a root at level %d: %s, want %s", root, c.name, want)
		}
		if c := callerOf(d, line[1:], root, nil); c.name != "inner" {
			t.Errorf("a root at level %d, in a cgroup that has a group itself: %s", root, c.name)
		}
	}
}

// Without an address: every VIP, each by one frontend of a family.
func TestVerdicts(t *testing.T) {
	maps := filled(t, explained(t), map[uint64]string{10: "web.slice"})
	d, err := maps.Dump()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range verdicts(d, callerOf(d, []ancestor{{"/web.slice", 10}, {"/", 1}}, 0, nil)) {
		got = append(got, v.VIP+" "+v.Address+" "+v.Action)
	}
	want := []string{"db 10.96.0.10:5432 balance", "dns 10.96.0.53:53/udp balance", "down 10.96.0.11:80 reject", "gone 10.96.0.12:80 pass"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
