// Package anchor decides which cgroup directory belongs to which configured
// group. It is one automaton over the components of a cgroup path: the watcher
// walks it in user space, and the same states and edges go into the kernel's
// tables, so that both choose alike. It does no I/O and holds no state but a
// compiled, immutable Tree.
//
// A pattern is an absolute path below the cgroup root; each component has the
// syntax of path.Match, in which "*" does not cross "/". One thing differs:
// systemd's escapes (a backslash, "x" and two hexadecimal digits) stand for
// themselves, so that a path can be copied from a listing of the cgroup tree.
package anchor

import (
	"strconv"
	"strings"
)

const (
	// MaxLevel is the deepest level an anchor may have; the root is level 0.
	MaxLevel = 31
	// MaxPatterns is how many pattern edges a node has at most.
	MaxPatterns = 16
	// MaxName is the longest name of a directory, in bytes.
	MaxName = 255

	nodeBits  = 20
	maxStates = 1 << 16 // far below the 2^20 nodes, so that probing stays short
	maxMixed  = 6       // inexact patterns that may meet below one directory
	maxClosed = 4096    // one-star patterns below one directory, with their intersections
)

// Group is a configured group: the anchors that its patterns name, and all
// beneath them.
type Group struct {
	Name     string
	Patterns []string // absolute, "/web.slice", "/a.slice/a-*.slice", "/" for the root
	Split    string   // path.Match pattern of basenames: a group of its own for each; "" = none
}

// Node is a state of the automaton: what is expected below a directory. It has
// 20 bits and is a hash of that expectation, so that a configuration has the
// same nodes in every run. 0 means that nothing is expected.
type Node uint32

// Match is what the automaton says of one directory.
type Match struct {
	Node    Node     // what is expected below it
	Group   string   // "" = only on the way, or searched for split children
	Anchor  bool     // a configured anchor
	Split   bool     // a split child of Group
	Pattern string   // the pattern that decided; the split pattern of a split child
	Same    []string // further patterns of Group that name this directory
	Lost    []string // patterns of other groups that name this directory and lost
}

// EdgeKind says how an edge matches names.
type EdgeKind uint8

const (
	Literal EdgeKind = iota // this very name
	Pattern                 // at least len(Prefix)+len(Suffix) bytes that start and end so
	Rest                    // every name that nothing else matches
)

func (k EdgeKind) String() string {
	switch k {
	case Literal:
		return "literal"
	case Pattern:
		return "pattern"
	case Rest:
		return "rest"
	}
	return "EdgeKind(" + strconv.Itoa(int(k)) + ")"
}

// Edge is one step as a kernel program takes it: a literal name if there is
// one, else the first pattern by Ordinal, else the rest.
type Edge struct {
	From           Node
	Kind           EdgeKind
	Name           string // of a Literal
	Prefix, Suffix string // of a Pattern
	Ordinal        int    // of a Pattern: from 0, without holes
	To             Match
}

// Tree is a compiled set of groups. It is immutable; all methods may be called
// from any goroutine. What they return must not be changed.
type Tree struct {
	groups   []Group
	patterns []pattern
	states   []*state
	byNode   map[Node]*state
	root     Match
	edges    []Edge
	inexact  []string
	crowds   []Crowd
}

// Root is what is said of the cgroup root itself.
func (t *Tree) Root() Match { return t.root }

// Child is what is said of the directory name below one whose Match has node n.
// False means that nothing is known of it: it belongs to its nearest ancestor's
// group.
func (t *Tree) Child(n Node, name string) (Match, bool) {
	s := t.byNode[n]
	if s == nil {
		return Match{}, false
	}
	if r, ok := s.literals[name]; ok {
		return r.match, true
	}
	if len(s.globs) == 0 {
		return s.rest.match, s.rest.known
	}
	r := s.outcomes[key(t.matching(s, name))] // in the order of globs, which is sorted
	return r.match, r.known
}

// Of is the group that the processes of a cgroup are in, that of the nearest directory
// above which has one, and the name of the split child of it, if it is one. "" = none.
func (t *Tree) Of(path string) (group, child string) {
	m, ok := t.root, true
	group, path = m.Group, strings.Trim(path, "/")
	if path == "" {
		return group, ""
	}
	for name := range strings.SplitSeq(path, "/") {
		if m, ok = t.Child(m.Node, name); !ok {
			break
		}
		switch {
		case m.Split:
			group, child = m.Group, name
		case m.Group != "":
			group, child = m.Group, ""
		}
	}
	return group, child
}

// Edges are the steps that a kernel program can take, sorted by node, then
// literal names, then patterns in their order, then the rest.
func (t *Tree) Edges() []Edge { return t.edges }

// Inexact are the patterns, in load order, that the kernel cannot decide: those
// with more than one star, a class or a question mark, and those beyond
// MaxPatterns in one place. User space maps their directories a little later.
func (t *Tree) Inexact() []string { return t.inexact }

// Crowd is what finds no room among the MaxPatterns below one directory.
type Crowd struct {
	Below    string   // that directory, as the first of Patterns has it
	Patterns []string // in load order
}

// Crowds are the patterns of Inexact with one star, which the kernel would decide but
// for those before them. Each is in one Crowd, however many directories it is too much in.
func (t *Tree) Crowds() []Crowd { return t.crowds }

// Patterns are all configured patterns, in load order.
func (t *Tree) Patterns() []string {
	all := make([]string, 0, len(t.patterns))
	for _, p := range t.patterns {
		all = append(all, p.text)
	}
	return all
}
