package anchor

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// walk follows a path through the tree; the zero Match where it is lost.
func walk(t *Tree, path string) Match {
	m := t.Root()
	if path == "/" {
		return m
	}
	for name := range strings.SplitSeq(path[1:], "/") {
		var ok bool
		if m, ok = t.Child(m.Node, name); !ok {
			return Match{}
		}
	}
	return m
}

// group names what a path's processes belong to, for tables.
func group(t *Tree, path string) string {
	in, child := t.Of(path)
	if child != "" {
		return in + "/" + child
	}
	return in
}

func TestGroups(t *testing.T) {
	tests := []struct {
		name   string
		groups []Group
		want   map[string]string // path -> group
	}{{
		name: "deepest wins", // edge T1
		groups: []Group{
			{Name: "a", Patterns: []string{"/a.slice"}},
			{Name: "ab", Patterns: []string{"/a.slice/a-b.slice"}},
		},
		want: map[string]string{
			"/":                              "",
			"/a.slice":                       "a",
			"/a.slice/x.scope":               "a",
			"/a.slice/x.scope/container":     "a",
			"/a.slice/a-b.slice":             "ab",
			"/a.slice/a-b.slice/y.service":   "ab",
			"/a.slice/a-c.slice/y.service":   "a",
			"/b.slice/a.slice":               "",
			"/lxc.payload.c1/a.slice":        "", // edge T6
			"/user.slice/a.slice/a-b.slice/": "",
		},
	}, {
		name: "literal before glob, whatever the order",
		groups: []Group{
			{Name: "glob", Patterns: []string{"/a.slice/a-*.slice"}},
			{Name: "lit", Patterns: []string{"/a.slice/a-b.slice"}},
		},
		want: map[string]string{
			"/a.slice":           "",
			"/a.slice/a-b.slice": "lit",
			"/a.slice/a-c.slice": "glob",
			"/a.slice/a-.slice":  "glob",
			"/a.slice/a-slice":   "",
		},
	}, {
		name: "a glob stands for units with escaped directories", // edge T19
		groups: []Group{
			{Name: "lit", Patterns: []string{"/_cpuset.slice"}},
			{Name: "glob", Patterns: []string{"/mem*.slice", "/c*.slice", "/?o.slice"}},
			{Name: "jobs", Patterns: []string{"/a.slice"}, Split: "c*.scope"},
			{Name: "all", Patterns: []string{"/all.slice/*.slice"}},
		},
		want: map[string]string{
			"/_memory.slice": "glob", "/_cpu.slice": "glob", "/_cgroup.slice": "glob", "/_cpuset.slice": "lit", "/_io.slice": "glob",
			"/_pids.slice": "", "/_meme.slice": "", "/_memory.scope": "", "/__memory.slice": "",
			"/a.slice/_cpu.scope": "jobs/_cpu.scope", "/a.slice/cpux.scope": "jobs/cpux.scope", "/a.slice/_io.scope": "jobs",
			"/all.slice/_cpu.slice": "all",
		},
	}, {
		name: "then the earlier",
		groups: []Group{
			{Name: "one", Patterns: []string{"/a*.slice"}},
			{Name: "two", Patterns: []string{"/*b.slice", "/*.slice"}},
		},
		want: map[string]string{
			"/ab.slice": "one", "/a.slice": "one", "/b.slice": "two", "/c.slice": "two",
		},
	}, {
		name: "a literal parent and a glob through it",
		groups: []Group{
			{Name: "share", Patterns: []string{"/nomad.slice/share.slice"}},
			{Name: "x", Patterns: []string{"/nomad.slice/*/x.scope"}},
		},
		want: map[string]string{
			"/nomad.slice/share.slice":           "share",
			"/nomad.slice/share.slice/x.scope":   "x",
			"/nomad.slice/share.slice/y.scope":   "share",
			"/nomad.slice/reserve.slice/x.scope": "x",
			"/nomad.slice/reserve.slice/y.scope": "",
		},
	}, {
		name:   "split children: the first on the way down, not below",
		groups: []Group{{Name: "jobs", Patterns: []string{"/nomad.slice"}, Split: "*.scope"}},
		want: map[string]string{
			"/nomad.slice":                             "jobs",
			"/nomad.slice/a.scope":                     "jobs/a.scope",
			"/nomad.slice/share.slice":                 "jobs",
			"/nomad.slice/share.slice/b.scope":         "jobs/b.scope",
			"/nomad.slice/a.scope/c.scope":             "jobs/a.scope",
			"/nomad.slice/s.service/x/y/z/d.scope":     "jobs/d.scope",
			"/nomad.slice/s.service/x/y/z/d.scope/run": "jobs/d.scope",
			"/a.scope": "",
		},
	}, {
		name: "a nested anchor beats split",
		groups: []Group{
			{Name: "jobs", Patterns: []string{"/a.slice"}, Split: "*.s*"},
			{Name: "own", Patterns: []string{"/a.slice/a-b.slice", "/a.slice/a-c.slice/deep.scope/x"}},
		},
		want: map[string]string{
			"/a.slice/a-b.slice":                "own",
			"/a.slice/a-b.slice/x.scope":        "own",
			"/a.slice/a-c.slice":                "jobs/a-c.slice",
			"/a.slice/a-c.slice/deep.scope":     "jobs/a-c.slice",
			"/a.slice/a-c.slice/deep.scope/x":   "own",
			"/a.slice/a-c.slice/deep.scope/x/y": "own",
			"/a.slice/plain/y.scope":            "jobs/y.scope",
		},
	}, {
		name: "a nested anchor with a split of its own",
		groups: []Group{
			{Name: "out", Patterns: []string{"/a.slice"}, Split: "*.scope"},
			{Name: "in", Patterns: []string{"/a.slice/b"}, Split: "c*"},
		},
		want: map[string]string{
			"/a.slice/x.scope":   "out/x.scope",
			"/a.slice/b":         "in",
			"/a.slice/b/x.scope": "in",
			"/a.slice/b/q/c1":    "in/c1",
		},
	}, {
		name:   "the root is an anchor",
		groups: []Group{{Name: "all", Patterns: []string{"/"}}, {Name: "web", Patterns: []string{"/web.slice"}}},
		want:   map[string]string{"/": "all", "/x": "all", "/web.slice": "web", "/x/web.slice": "all"},
	}, {
		name:   "the root is in no directory",
		groups: []Group{{Name: "all", Patterns: []string{"/*"}}},
		want:   map[string]string{"": "", "/": "", "/x": "all"},
	}, {
		name:   "the root is split",
		groups: []Group{{Name: "lxc", Patterns: []string{"/"}, Split: "lxc.payload.*"}},
		want:   map[string]string{"/x": "lxc", "/lxc.payload.c1/x": "lxc/lxc.payload.c1", "/p/lxc.payload.c2": "lxc/lxc.payload.c2"},
	}, {
		name: "what the kernel cannot match",
		groups: []Group{
			{Name: "g", Patterns: []string{"/a?.slice/b.slice", "/*x*.slice", "/[pq].slice"}},
		},
		want: map[string]string{
			"/ab.slice/b.slice": "g", "/a.slice/b.slice": "", "/axb.slice": "g", "/ax.slice/b.slice": "g",
			"/p.slice": "g", "/r.slice": "",
		},
	}, {
		name:   "escapes",
		groups: []Group{{Name: "g", Patterns: []string{`/foo\x2dbar.slice`, `/a\*b`, `/q\x2d*`}}},
		want: map[string]string{
			`/foo\x2dbar.slice`: "g", "/foo-bar.slice": "", "/foox2dbar.slice": "", "/a*b": "g", "/axb": "", `/q\x2dz`: "g",
		},
	}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree, err := Compile(tt.groups)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for path := range tt.want {
				got[path] = group(tree, path)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("groups (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	tree, err := Compile([]Group{
		{Name: "one", Patterns: []string{"/a*.slice", "/ab*.slice"}},
		{Name: "two", Patterns: []string{"/*.slice"}},
		{Name: "three", Patterns: []string{"/abc.slice"}, Split: "*.scope"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := walk(tree, "/abc.slice")
	if got.Node == 0 || got.Node >= 1<<20 {
		t.Errorf("node %#x of a split anchor", got.Node)
	}
	got.Node = 0
	want := Match{
		Group: "three", Anchor: true, Pattern: "/abc.slice",
		Lost: []string{"/a*.slice", "/ab*.slice", "/*.slice"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("anchor (-want +got):\n%s", diff)
	}
	want = Match{Group: "three", Split: true, Pattern: "*.scope"}
	if diff := cmp.Diff(want, walk(tree, "/abc.slice/x.scope")); diff != "" {
		t.Errorf("split child (-want +got):\n%s", diff)
	}
	want = Match{Group: "one", Anchor: true, Pattern: "/a*.slice", Same: []string{"/ab*.slice"}, Lost: []string{"/*.slice"}}
	if diff := cmp.Diff(want, walk(tree, "/abd.slice")); diff != "" {
		t.Errorf("glob (-want +got):\n%s", diff)
	}
}

func TestCompileErrors(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("/d", n) }
	tests := []struct {
		name  string
		group Group
		want  string // "" = compiles
	}{
		{"OK level 31", Group{Name: "g", Patterns: []string{deep(31)}}, ""}, // edge D23
		{"bad level 32", Group{Name: "g", Patterns: []string{deep(32)}}, "32 levels"},
		{"bad relative", Group{Name: "g", Patterns: []string{"a.slice"}}, "not an absolute path"},
		{"bad empty component", Group{Name: "g", Patterns: []string{"/a//b"}}, "empty component"},
		{"bad trailing slash", Group{Name: "g", Patterns: []string{"/a/"}}, "empty component"},
		{"bad dots", Group{Name: "g", Patterns: []string{"/a/../b"}}, "name no cgroup"},
		{"bad class", Group{Name: "g", Patterns: []string{"/a[b"}}, "syntax error"},
		{"bad escape", Group{Name: "g", Patterns: []string{`/a\`}}, "syntax error"},
		{"bad range", Group{Name: "g", Patterns: []string{`/[b-a`}}, "syntax error"},
		{"bad newline", Group{Name: "g", Patterns: []string{"/a\nb"}}, "newline"},
		{"bad length", Group{Name: "g", Patterns: []string{"/" + strings.Repeat("x", 256)}}, "255"},
		{"OK length", Group{Name: "g", Patterns: []string{"/" + strings.Repeat("x", 255) + "*"}}, ""},
		{"bad split path", Group{Name: "g", Patterns: []string{"/a"}, Split: "a/b"}, "basename"},
		{"bad split", Group{Name: "g", Patterns: []string{"/a"}, Split: "[x"}, "syntax error"},
		{"bad name", Group{Patterns: []string{"/a"}}, "no name"},
		{"bad crowd", Group{Name: "g", Patterns: []string{"/a?", "/b?", "/c?", "/d?", "/e?", "/f?", "/g?"}}, "more than 6"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile([]Group{tt.group})
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	_, err := Compile([]Group{{Name: "g", Patterns: []string{"x", "/ok", "/a//b"}}})
	if err == nil || !strings.Contains(err.Error(), `"x"`) || !strings.Contains(err.Error(), `"/a//b"`) {
		t.Errorf("error %v, want both patterns named", err)
	}
}

func TestEdges(t *testing.T) {
	tree, err := Compile([]Group{
		{Name: "jobs", Patterns: []string{"/nomad.slice"}, Split: "*.scope"},
		{Name: "web", Patterns: []string{"/w-*.slice", "/*-b.slice"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	names := map[Node]string{tree.Root().Node: "root", walk(tree, "/nomad.slice").Node: "search", 0: "-"}
	for _, e := range tree.Edges() {
		what := e.Name
		if e.Kind == Pattern {
			what = fmt.Sprintf("%d:%s*%s", e.Ordinal, e.Prefix, e.Suffix)
		}
		got = append(got, fmt.Sprintf("%s %s %q -> %s %q split=%v", names[e.From], e.Kind, what, names[e.To.Node], e.To.Group, e.To.Split))
	}
	slices.Sort(got) // nodes are hashes
	want := []string{
		// "w-*.slice" and "*-b.slice" overlap in one name
		`root literal "nomad.slice" -> search "jobs" split=false`,
		`root literal "w-b.slice" -> - "web" split=false`,
		`root pattern "0:w-*-b.slice" -> - "web" split=false`,
		`root pattern "1:*-b.slice" -> - "web" split=false`,
		`root pattern "2:w-*.slice" -> - "web" split=false`,
		`search pattern "0:*.scope" -> - "jobs" split=true`,
		`search rest "" -> search "" split=false`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("edges (-want +got):\n%s", diff)
	}
}

func TestInexact(t *testing.T) {
	groups := []Group{{Name: "g", Patterns: []string{"/a*", "/*b*", "/x**y", "/c/d[1-3]/e"}, Split: "?"}}
	for i := range 20 {
		groups = append(groups, Group{Name: fmt.Sprintf("n%02d", i), Patterns: []string{fmt.Sprintf("/n%02d*", i)}})
	}
	tree, err := Compile(groups)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/*b*", "/c/d[1-3]/e", "?"}
	for i := 14; i < 20; i++ { // a*, x*y and 14 more are as many as fit
		want = append(want, fmt.Sprintf("/n%02d*", i))
	}
	if diff := cmp.Diff(want, tree.Inexact()); diff != "" {
		t.Errorf("inexact (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Crowd{{"/", want[3:]}}, tree.Crowds()); diff != "" {
		t.Errorf("crowds (-want +got):\n%s", diff)
	}
	if got := group(tree, "/n19z"); got != "n19" {
		t.Errorf("a pattern beyond the kernel's limit: group %q", got)
	}
	perNode := map[Node]int{}
	for _, e := range tree.Edges() {
		if e.Kind == Pattern {
			perNode[e.From]++
		}
	}
	for n, count := range perNode {
		if count > MaxPatterns {
			t.Errorf("node %#x has %d patterns", n, count)
		}
	}
}

// A pattern is in one crowd, that of the first directory in which it is too much; what
// two share takes room as well.
func TestCrowds(t *testing.T) {
	g := Group{Name: "g", Split: "*.scope"}
	for i := range MaxPatterns {
		g.Patterns = append(g.Patterns, fmt.Sprintf("/d/e/n%02d*", i), fmt.Sprintf("/*/e/m%02d*", i))
	}
	g.Patterns = append(g.Patterns, "/*/e/m99*") // one too many in any folder
	overlapping := Group{Name: "o"}
	for c := 'a'; c < 'e'; c++ { // four stars in front, four behind: 16 of both
		overlapping.Patterns = append(overlapping.Patterns, fmt.Sprintf("/o/%c*", c), fmt.Sprintf("/o/*%c", c))
	}
	tree, err := Compile([]Group{g, overlapping})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range tree.Crowds() {
		got = append(got, fmt.Sprintf("%s %d %s", c.Below, len(c.Patterns), c.Patterns[0]))
	}
	want := []string{"/o 2 /o/d*", "/*/e 1 /*/e/m99*", "/d/e 16 /d/e/n08*"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("crowds (-want +got):\n%s", diff)
	}
}

func TestNodesAreStable(t *testing.T) {
	groups := []Group{
		{Name: "a", Patterns: []string{"/a.slice", "/x.slice/*/y"}, Split: "*.scope"},
		{Name: "b", Patterns: []string{"/x.slice/b*"}},
	}
	one, err := Compile(groups)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Compile(slices.Clone(groups))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(one.Edges(), two.Edges()); diff != "" {
		t.Errorf("edges differ between runs:\n%s", diff)
	}
	// what lies elsewhere does not move a node
	three, err := Compile(append(groups, Group{Name: "c", Patterns: []string{"/c.slice"}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/a.slice", "/x.slice", "/x.slice/b1"} {
		if got, want := walk(three, path).Node, walk(one, path).Node; got != want || got == 0 {
			t.Errorf("%s: node %#x, was %#x", path, got, want)
		}
	}
}

func TestEmpty(t *testing.T) {
	tree, err := Compile(nil)
	if err != nil {
		t.Fatal(err)
	}
	if m := tree.Root(); m.Node != 0 || m.Group != "" {
		t.Errorf("root %+v", m)
	}
	if m, ok := tree.Child(0, "x"); ok {
		t.Errorf("child %+v", m)
	}
	if e := tree.Edges(); len(e) > 0 {
		t.Errorf("edges %v", e)
	}
}

func TestManyGroups(t *testing.T) {
	var groups []Group
	for i := range 2000 {
		groups = append(groups, Group{
			Name:     fmt.Sprintf("g%d", i),
			Patterns: []string{fmt.Sprintf("/g.slice/g-%d.slice", i)},
			Split:    "*.scope",
		})
	}
	tree, err := Compile(groups)
	if err != nil {
		t.Fatal(err)
	}
	if got := group(tree, "/g.slice/g-1999.slice/q.scope"); got != "g1999/q.scope" {
		t.Errorf("group %q", got)
	}
	nodes := map[Node]bool{}
	for _, e := range tree.Edges() {
		nodes[e.From] = true
	}
	if len(nodes) != 2002 { // the root, g.slice, and each search
		t.Errorf("%d nodes", len(nodes))
	}
}
