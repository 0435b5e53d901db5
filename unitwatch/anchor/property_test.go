package anchor

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// asKernel takes one step as a program does: a literal name, else the first
// pattern in order, else the rest.
func asKernel(edges []Edge, from Node, name string) (Match, bool) {
	for _, e := range edges {
		if e.From == from && e.Kind == Literal && e.Name == name {
			return e.To, true
		}
	}
	for ordinal := range MaxPatterns {
		for _, e := range edges {
			if e.From == from && e.Kind == Pattern && e.Ordinal == ordinal &&
				len(name) >= len(e.Prefix)+len(e.Suffix) &&
				strings.HasPrefix(name, e.Prefix) && strings.HasSuffix(name, e.Suffix) {
				return e.To, true
			}
		}
	}
	for _, e := range edges {
		if e.From == from && e.Kind == Rest {
			return e.To, true
		}
	}
	return Match{}, false
}

// A small alphabet, so that patterns overlap and intersect.
func drawGroups(t *rapid.T, component *rapid.Generator[string]) []Group {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Group {
		paths := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			return "/" + strings.Join(rapid.SliceOfN(component, 0, 3).Draw(t, "components"), "/")
		}), 1, 3)
		g := Group{Name: rapid.StringMatching("[a-z]{4}").Draw(t, "name"), Patterns: paths.Draw(t, "patterns")}
		if rapid.Bool().Draw(t, "is split") {
			g.Split = component.Draw(t, "split")
		}
		return g
	}), 1, 4).Draw(t, "groups")
}

var (
	exactComponent = rapid.StringMatching(`[ab]{1,3}|[ab]{0,2}\*[ab]{0,2}`)
	anyComponent   = rapid.StringMatching(`[ab]{1,3}|[ab]{0,2}\*[ab]{0,2}|[ab]?\?[ab]?|\[ab\]a|[ab]?\*[ab]\*`)
	dirName        = rapid.StringMatching(`[abc]{1,5}`)
)

func TestAgreesWithKernel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree, err := Compile(drawGroups(t, exactComponent))
		if err != nil {
			t.Fatal(err)
		}
		if len(tree.Inexact()) > 0 {
			t.Skip("more patterns than fit")
		}
		edges := tree.Edges()
		for range 10 {
			n := tree.Root().Node
			for range 5 {
				name := dirName.Draw(t, "name")
				user, okUser := tree.Child(n, name)
				kernel, okKernel := asKernel(edges, n, name)
				if okUser != okKernel {
					t.Fatalf("node %#x, %q: user space %v, kernel %v", n, name, okUser, okKernel)
				}
				if diff := cmp.Diff(user, kernel); diff != "" {
					t.Fatalf("node %#x, %q (-user space +kernel):\n%s", n, name, diff)
				}
				n = user.Node
			}
		}
	})
}

// reference says which group a path belongs to, from the rules alone.
func reference(groups []Group, path []string) string {
	matches := func(pattern string, path []string) (ok, literal bool) {
		p, err := parsePattern(pattern)
		if err != nil || len(p.components) != len(path) {
			return false, false
		}
		for i, c := range p.components {
			if !c.matches(path[i]) {
				return false, false
			}
		}
		return true, p.literal
	}
	anchorAt := func(path []string) int {
		best, bestLiteral := -1, false
		for g, group := range groups {
			for _, p := range group.Patterns {
				ok, literal := matches(p, path)
				if ok && (best < 0 || literal && !bestLiteral) {
					best, bestLiteral = g, literal
				}
			}
		}
		return best
	}
	nearest, level := -1, 0
	for i := 0; i <= len(path); i++ {
		if g := anchorAt(path[:i]); g >= 0 {
			nearest, level = g, i
		}
	}
	if nearest < 0 {
		return ""
	}
	if split := groups[nearest].Split; split != "" {
		c, _ := parseComponent(split)
		for _, name := range path[level:] {
			if c.matches(name) {
				return groups[nearest].Name + "/" + name
			}
		}
	}
	return groups[nearest].Name
}

func TestTreeFollowsTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		groups := drawGroups(t, anyComponent)
		for i := range groups {
			groups[i].Name = fmt.Sprint(groups[i].Name, i)
		}
		tree, err := Compile(groups)
		if err != nil {
			t.Skip(err) // too many inexact patterns in one place
		}
		for range 10 {
			path := rapid.SliceOfN(dirName, 0, 5).Draw(t, "path")
			want := reference(groups, path)
			if got := group(tree, "/"+strings.Join(path, "/")); got != want {
				t.Fatalf("%q: group %q, want %q", path, got, want)
			}
		}
	})
}

// Every node that a Match names, and that expects something, has edges.
func TestNoNodeWithoutEdges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree, err := Compile(drawGroups(t, exactComponent))
		if err != nil {
			t.Fatal(err)
		}
		edges := tree.Edges()
		for _, e := range edges {
			if e.To.Node != 0 && !slices.ContainsFunc(edges, func(o Edge) bool { return o.From == e.To.Node }) {
				t.Fatalf("%+v leads to a node without edges", e)
			}
		}
	})
}

func FuzzCompile(f *testing.F) {
	f.Add("/a.slice/a-*.slice", "*.scope", `a-b.slice`)
	f.Add(`/foo\x2dbar.slice/[a-c]?`, "x", `foo\x2dbar.slice`)
	f.Add("/", "", "-.slice")
	f.Fuzz(func(t *testing.T, pattern, split, unit string) {
		tree, err := Compile([]Group{{Name: "g", Patterns: []string{pattern}, Split: split}})
		if err == nil {
			for name := range strings.SplitSeq(pattern, "/") {
				tree.Child(tree.Root().Node, name)
			}
		}
		if path, err := FromUnit(unit); err == nil {
			if _, err := parsePattern(path); err != nil && len(unit) < 60 && !strings.ContainsAny(unit, `[\`) {
				t.Errorf("FromUnit(%q) = %q: %v", unit, path, err)
			}
		}
	})
}
