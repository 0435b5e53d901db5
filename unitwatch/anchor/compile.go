package anchor

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// state is a set of patterns of which the components so far have matched, and
// at most one search for split children: that of the nearest anchor.
type state struct {
	live   []int // pattern indexes, sorted; all have matched the same number of components
	depth  int   // that number
	search int   // group index, -1 = none

	globs    []glob            // what may match besides a literal name
	literals map[string]result // every literal name that differs from the rest
	rest     result            // names that nothing matches
	outcomes map[string]result // by key of the matching patterns
	content  string
	node     Node
}

// glob is a component that is expected below a state. Pattern splitChild is the
// search's.
type glob struct {
	pattern int
	component
}

const splitChild = -1

type result struct {
	match Match
	child *state
	known bool
}

// Compile builds the tree of groups, whose order is their precedence: a literal
// path is preferred to a glob, then the earlier. Errors name group and pattern;
// all of them are returned, joined.
func Compile(groups []Group) (*Tree, error) {
	t := &Tree{groups: slices.Clone(groups), byNode: map[Node]*state{}}
	splits, err := t.parse()
	if err != nil {
		return nil, err
	}
	b := builder{tree: t, splits: splits, byContent: map[string]*state{}, inexact: map[string]bool{}, crowded: map[int]bool{}}
	root := b.root()
	for i := 0; i < len(t.states); i++ { // expand appends
		if err := b.expand(t.states[i]); err != nil {
			return nil, err
		}
		if len(t.states) > maxStates {
			return nil, fmt.Errorf("groups: the patterns combine to more than %d states", maxStates)
		}
	}
	t.number()
	t.root = root.match
	if root.child != nil {
		t.root.Node = root.child.node
	}
	for i := range b.edges {
		e := &b.edges[i]
		e.edge.From = e.from.node
		if e.to != nil {
			e.edge.To.Node = e.to.node
		}
		t.edges = append(t.edges, e.edge)
	}
	slices.SortStableFunc(t.edges, func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Kind, b.Kind),
			cmp.Compare(a.Ordinal, b.Ordinal), cmp.Compare(a.Name, b.Name))
	})
	t.listInexact(b.inexact, splits)
	return t, nil
}

// builder holds what is needed only while compiling.
type builder struct {
	tree      *Tree
	splits    []*component
	byContent map[string]*state
	edges     []pendingEdge
	inexact   map[string]bool // texts of patterns and splits that do not fit the kernel
	crowded   map[int]bool    // patterns that a Crowd has
}

type pendingEdge struct {
	edge     Edge
	from, to *state
}

func (b *builder) root() result {
	all := make([]int, len(b.tree.patterns))
	for i := range all {
		all[i] = i
	}
	return b.outcome(&state{depth: -1, search: -1}, all, false)
}

// outcome is what a directory is whose name the patterns in matched fit.
func (b *builder) outcome(from *state, matched []int, split bool) result {
	t := b.tree
	next := state{depth: from.depth + 1, search: -1}
	var done []int
	for _, p := range matched {
		if len(t.patterns[p].components) == next.depth {
			done = append(done, p)
		} else {
			next.live = append(next.live, p)
		}
	}
	var r result
	switch {
	case len(done) > 0:
		r.match = t.decide(done)
		r.known = true
		if g := t.patterns[t.winner(done)].group; b.splits[g] != nil {
			next.search = g
		}
	case from.search >= 0 && split:
		group := t.groups[from.search]
		r.match = Match{Group: group.Name, Split: true, Pattern: group.Split}
		r.known = true
	case from.search >= 0:
		next.search = from.search
		r.known = true
	default:
		r.known = len(next.live) > 0
	}
	if len(next.live) > 0 || next.search >= 0 {
		r.child = b.intern(next)
	}
	return r
}

// winner prefers a literal path to a glob, then the earlier.
func (t *Tree) winner(done []int) int {
	for _, p := range done {
		if t.patterns[p].literal {
			return p
		}
	}
	return done[0]
}

func (t *Tree) decide(done []int) Match {
	won := t.winner(done)
	group := t.patterns[won].group
	m := Match{Group: t.groups[group].Name, Anchor: true, Pattern: t.patterns[won].text}
	for _, p := range done {
		switch {
		case p == won:
		case t.patterns[p].group == group:
			m.Same = append(m.Same, t.patterns[p].text)
		default:
			m.Lost = append(m.Lost, t.patterns[p].text)
		}
	}
	return m
}

// intern returns the one state with this content. A search without patterns is
// the same at every depth.
func (b *builder) intern(s state) *state {
	if len(s.live) == 0 {
		s.depth = 0
	}
	t := b.tree
	var content strings.Builder
	for _, p := range s.live {
		pat := t.patterns[p]
		fmt.Fprintf(&content, "%q %q %q %d\n", t.groups[pat.group].Name, t.groups[pat.group].Split, pat.text, s.depth)
	}
	if s.search >= 0 {
		fmt.Fprintf(&content, "search %q %q\n", t.groups[s.search].Name, t.groups[s.search].Split)
	}
	s.content = content.String()
	if known := b.byContent[s.content]; known != nil {
		return known
	}
	kept := &s
	b.byContent[s.content] = kept
	t.states = append(t.states, kept)
	return kept
}

// expand finds what can follow a state: the results for user space, and the
// edges for the kernel.
func (b *builder) expand(s *state) error {
	t := b.tree
	s.literals = map[string]result{}
	s.outcomes = map[string]result{}
	names := map[string][]int{} // patterns by their literal name
	add := func(pattern int, c component) {
		if c.shape == literal {
			names[c.name] = append(names[c.name], pattern)
			return
		}
		s.globs = append(s.globs, glob{pattern, c})
		for _, name := range c.escaped() {
			names[name] = append(names[name], pattern)
		}
	}
	if s.search >= 0 { // first, so that it is the last to be dropped
		add(splitChild, *b.splits[s.search])
	}
	for _, p := range s.live {
		add(p, t.patterns[p].components[s.depth])
	}

	kept, dropped, overlaps := b.close(s, MaxPatterns)
	b.crowd(s, dropped)
	all, rest, more := b.close(s, maxClosed)
	if len(rest) > 0 {
		return fmt.Errorf("pattern %q: too many overlapping patterns below one directory", b.text(s, rest[0]))
	}
	for _, n := range slices.Concat(overlaps, more) {
		if _, ok := names[n]; !ok && len(n) <= MaxName {
			names[n] = nil
		}
	}
	if err := b.enumerate(s, all); err != nil {
		return err
	}

	s.rest = b.result(s, nil)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		r := b.result(s, append(t.matching(s, name), names[name]...))
		s.literals[name] = r
		b.edge(s, r, Edge{Kind: Literal, Name: name})
	}
	for i, k := range kept {
		b.edge(s, b.result(s, covering(s, k)), Edge{Kind: Pattern, Prefix: k.prefix, Suffix: k.suffix, Ordinal: i})
	}
	if s.rest.known {
		b.edge(s, s.rest, Edge{Kind: Rest})
	}
	return nil
}

// crowd takes note of the one-star patterns that the kernel has no room for below s.
// The search's is none of them, since it comes first.
func (b *builder) crowd(s *state, dropped []int) {
	var c Crowd
	for _, g := range dropped {
		if b.crowded[g] {
			continue
		}
		text := b.tree.patterns[g].text
		b.crowded[g], b.inexact[text] = true, true
		if c.Patterns == nil {
			c.Below = cmp.Or(strings.Join(strings.Split(text, "/")[:s.depth+1], "/"), "/")
		}
		c.Patterns = append(c.Patterns, text)
	}
	if c.Patterns != nil {
		b.tree.crowds = append(b.tree.crowds, c)
	}
}

func (b *builder) edge(from *state, r result, e Edge) {
	e.To = r.match
	b.edges = append(b.edges, pendingEdge{edge: e, from: from, to: r.child})
}

func (b *builder) text(s *state, pattern int) string {
	if pattern == splitChild {
		return b.tree.groups[s.search].Split
	}
	return b.tree.patterns[pattern].text
}

// enumerate makes a result for every combination of patterns that one name
// could match, so that user space never finds a state that has no edges.
func (b *builder) enumerate(s *state, regions []region) error {
	var odd []int
	for _, g := range s.globs {
		if g.shape == mixed {
			odd = append(odd, g.pattern)
			b.inexact[b.text(s, g.pattern)] = true
		}
	}
	if len(odd) > maxMixed {
		return fmt.Errorf("pattern %q: more than %d patterns with a class, a question mark or several stars below one directory",
			b.text(s, odd[maxMixed]), maxMixed)
	}
	combine := func(base []int) {
		for bits := range 1 << len(odd) {
			matched := slices.Clone(base)
			for i, p := range odd {
				if bits&(1<<i) != 0 {
					matched = append(matched, p)
				}
			}
			b.result(s, matched)
		}
	}
	combine(nil)
	for _, r := range regions {
		combine(covering(s, r))
	}
	return nil
}

// result is the outcome for the patterns in matched, which it sorts, made once.
func (b *builder) result(s *state, matched []int) result {
	slices.Sort(matched)
	k := key(matched)
	if r, ok := s.outcomes[k]; ok {
		return r
	}
	patterns, split := matched, false
	if len(matched) > 0 && matched[0] == splitChild {
		patterns, split = matched[1:], true
	}
	r := b.outcome(s, patterns, split)
	s.outcomes[k] = r
	return r
}

// matching are the patterns below s, but for literal names, that a name fits.
func (t *Tree) matching(s *state, name string) []int {
	var matched []int
	for _, g := range s.globs {
		if g.matches(name) {
			matched = append(matched, g.pattern)
		}
	}
	return matched
}

func key(matched []int) string {
	var k []byte
	for _, p := range matched {
		k = strconv.AppendInt(k, int64(p), 10)
		k = append(k, ' ')
	}
	return string(k)
}

// number gives each state its node: a hash of its content, or the next that is
// free. States are taken in the order of their content, so that the same groups
// always have the same nodes.
func (t *Tree) number() {
	sorted := slices.SortedFunc(slices.Values(t.states), func(a, b *state) int {
		return strings.Compare(a.content, b.content)
	})
	for _, s := range sorted {
		h := fnv.New64a()
		_, _ = h.Write([]byte(s.content)) // cannot fail
		sum := h.Sum64()
		n := Node((sum ^ sum>>nodeBits ^ sum>>(2*nodeBits)) & (1<<nodeBits - 1))
		for n == 0 || t.byNode[n] != nil {
			n = (n + 1) & (1<<nodeBits - 1)
		}
		s.node = n
		t.byNode[n] = s
	}
	finish := func(r result) result {
		if r.child != nil {
			r.match.Node = r.child.node
		}
		return r
	}
	for _, s := range t.states {
		s.rest = finish(s.rest)
		for k, r := range s.literals {
			s.literals[k] = finish(r)
		}
		for k, r := range s.outcomes {
			s.outcomes[k] = finish(r)
		}
	}
}

func (t *Tree) listInexact(found map[string]bool, splits []*component) {
	for g, group := range t.groups {
		for _, p := range t.patterns {
			if p.group == g && found[p.text] {
				t.inexact = append(t.inexact, p.text)
			}
		}
		if splits[g] != nil && found[group.Split] {
			t.inexact = append(t.inexact, group.Split)
		}
	}
}
