package unitwatch

import (
	"strings"
	"testing"

	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// A container's id, and another's.
var (
	id1 = strings.Repeat("0123456789abcdef", 4)
	id2 = strings.Repeat("fedcba9876543210", 4)
)

func TestRecognised(t *testing.T) {
	anchored := &anchor.Match{Group: "jobs", Anchor: true}
	split := &anchor.Match{Group: "jobs", Split: true}
	way := &anchor.Match{}
	for _, test := range []struct {
		name, path, description, want string
	}{
		{"OK described", "/libpod-" + id1 + ".scope", "db", "db"},
		{"OK the unit that it lies in", "/web.service/libpod-payload-" + id1, "", "web.service"},
		{"OK further up", "/web.service/x/" + id1, "", "web.service"},
		{"its own name says enough", "/build-17.scope", "db", ""},
		{"Nomad", "/0b4c9bde-7b1c-5b3f-8d1c-1f2e3d4c5b6a.web.scope", "db", ""},
		{"no name to be had", "/docker-" + id1 + ".scope", "", ""},
		{"described by words", "/docker-" + id1 + ".scope", "libcrun container", ""},
		{"described by its id", "/docker-" + id1 + ".scope", id1, ""},
		{"described by its own name", "/docker-" + id1 + ".scope", "docker-" + id1 + ".scope", ""},
		{"bad description, escape", "/docker-" + id1 + ".scope", "a\x1b[31m", ""},
		{"bad description, a path", "/docker-" + id1 + ".scope", "a/b", ""},
		{"bad description, long", "/docker-" + id1 + ".scope", strings.Repeat("x", 64), ""},
		{"bad description, a number", "/docker-" + id1 + ".scope", "123", ""},
		{"bad description, an option", "/docker-" + id1 + ".scope", "--help", ""},
		{"lies in another container", "/libpod-" + id2 + ".scope/" + id1, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := &dir{name: "jobs.slice", match: anchored, parent: &dir{match: way}}
			parts := strings.Split(test.path[1:], "/")
			for i, name := range parts {
				d = &dir{name: name, match: way, parent: d}
				if i == len(parts)-1 {
					d.match, d.about = split, &about{description: test.description}
				}
			}
			if got := recognised(d); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// A split child has the name that its unit's description is, once systemd has said
// it; two that would have the same keep their directories' names.
func TestSplitNames(t *testing.T) {
	f := newFakeSystemd(t)
	o := f.options()
	o.Tree = compile(t, anchor.Group{Name: "jobs", Patterns: []string{"/machine.slice"}, Split: "libpod-*"})
	r := run(t, o)
	r.onBus()
	f.describe("libpod-"+id1+".scope", "db")
	f.describe("libpod-"+id2+".scope", "web")
	f.start("libpod-"+id1+".scope", "machine.slice")
	f.start("libpod-"+id2+".scope", "machine.slice")
	r.lines("both named",
		"/machine.slice anchor jobs",
		"/machine.slice/libpod-"+id1+".scope split jobs/db",
		"/machine.slice/libpod-"+id2+".scope split jobs/web",
	)
	third := strings.Repeat("a", idLength)
	f.describe("libpod-"+third+".scope", "web")
	f.start("libpod-"+third+".scope", "machine.slice")
	r.lines("two of one name",
		"/machine.slice anchor jobs",
		"/machine.slice/libpod-"+id1+".scope split jobs/db",
		"/machine.slice/libpod-"+third+".scope split jobs/libpod-"+third+".scope",
		"/machine.slice/libpod-"+id2+".scope split jobs/libpod-"+id2+".scope",
	)
}
