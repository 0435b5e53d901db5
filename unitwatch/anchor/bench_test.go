package anchor

import (
	"fmt"
	"testing"
)

func BenchmarkCompile1000(b *testing.B) {
	var groups []Group
	for i := range 1000 {
		groups = append(groups, Group{Name: fmt.Sprintf("g%d", i), Patterns: []string{fmt.Sprintf("/g%d.slice", i)}})
	}
	for b.Loop() {
		if _, err := Compile(groups); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChild(b *testing.B) {
	tree, err := Compile([]Group{
		{Name: "web", Patterns: []string{"/web.slice", "/a-*.slice"}},
		{Name: "jobs", Patterns: []string{"/nomad.slice"}, Split: "*.scope"},
	})
	if err != nil {
		b.Fatal(err)
	}
	root, search := tree.Root().Node, walk(tree, "/nomad.slice").Node
	for _, bb := range []struct {
		name string
		node Node
		dir  string
	}{{"literal", root, "web.slice"}, {"glob", root, "a-b.slice"}, {"miss", root, "system.slice"}, {"split", search, "x.scope"}, {"rest", search, "x"}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tree.Child(bb.node, bb.dir)
			}
		})
	}
}
