package lb

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// world is a configuration and the directories that exist.
type world struct {
	cfg  *config.Config
	dirs map[string]uint64 // path -> id
	rt   Runtime

	anchors *anchor.Tree      // see tree
	groups  map[string]string // see groupOf
	judged  map[call]Judgement
}

var (
	groupNames = []string{"ga", "gb", "gc", "gd"}
	vipNames   = []string{"va", "vb", "vc"}
	dirPaths   = []string{"/", "/a.slice", "/a.slice/a-x.slice", "/a.slice/a-x.slice/1.scope",
		"/b.slice", "/b.slice/2.scope", "/b.slice/c.slice", "/b.slice/c.slice/3.scope", "/d.slice"}
	patterns = []string{"/a.slice", "/a.slice/a-x.slice", "/a.slice/a-*.slice", "/b.slice",
		"/b.slice/c.slice", "/b.slice/*.slice", "/d.slice", "/*.slice"}
)

func drawKey(family, i int, proto config.Proto) config.Frontend {
	a := fmt.Sprintf("10.0.0.%d:80", i)
	if family == 6 {
		a = fmt.Sprintf("[fd00::%d]:80", i)
	}
	return config.Frontend{Addr: netip.MustParseAddrPort(a), Proto: proto}
}

func allFrontends() []config.Frontend {
	var out []config.Frontend
	for i := range 3 {
		out = append(out, drawKey(4, i+1, config.TCP), drawKey(6, i+1, config.TCP), drawKey(4, i+1, config.UDP))
	}
	return out
}

// askedKeys are the frontends, and ports that are none of any VIP.
func askedKeys() []bpf.FrontendKey {
	var out []bpf.FrontendKey
	for _, f := range allFrontends() {
		out = append(out, bpf.FrontendKey{Addr: f.Addr, Proto: uint8(f.Proto)})
		if f.Proto == config.TCP {
			other := netip.AddrPortFrom(f.Addr.Addr(), 81)
			out = append(out, bpf.FrontendKey{Addr: other, Proto: bpf.TCP}, bpf.FrontendKey{Addr: other, Proto: bpf.UDP})
		}
	}
	return out
}

func drawBackends(t *rapid.T, label string) []config.Backend {
	var out []config.Backend
	for i := range 4 {
		for _, form := range []string{"192.0.2.%d:80", "[2001:db8::%d]:80"} {
			if w := rapid.IntRange(-3, 3).Draw(t, label); w >= 0 {
				out = append(out, config.Backend{
					Addr: netip.MustParseAddrPort(fmt.Sprintf(form, i+1)), Weight: uint32(w)})
			}
		}
	}
	return out
}

func drawWorld(t *rapid.T) *world {
	maglevSizes = []uint32{31} // quick; the right sizes are tested where tables are
	w := &world{cfg: &config.Config{}, dirs: map[string]uint64{}}
	free := slices.Clone(patterns)
	for _, name := range groupNames {
		if !rapid.Bool().Draw(t, "group "+name) {
			continue
		}
		g := config.Group{Name: name, Translate: rapid.IntRange(0, 5).Draw(t, "translate") > 0}
		for range rapid.IntRange(0, 2).Draw(t, "anchors") {
			if len(free) == 0 {
				break
			}
			i := rapid.IntRange(0, len(free)-1).Draw(t, "anchor")
			g.Anchors = append(g.Anchors, config.Anchor{Pattern: free[i]})
			free = slices.Delete(free, i, i+1)
		}
		if rapid.IntRange(0, 3).Draw(t, "split") == 0 {
			g.Split = "*.scope"
			g.SplitMetrics = rapid.Uint32Range(0, 2).Draw(t, "split_metrics")
		}
		w.cfg.Groups = append(w.cfg.Groups, g)
	}
	var names []string
	for _, g := range w.cfg.Groups {
		names = append(names, g.Name)
	}
	fronts := allFrontends()
	for _, name := range vipNames {
		if !rapid.Bool().Draw(t, "vip "+name) {
			continue
		}
		v := config.VIP{Name: name, Backends: drawBackends(t, "weight"),
			Hidden:    rapid.SampledFrom([]config.Hidden{config.HiddenPass, config.HiddenReject}).Draw(t, "hidden"),
			Algorithm: rapid.SampledFrom([]config.Algorithm{config.Random, config.Random, config.Maglev, config.LeastConnections}).Draw(t, "algorithm"),
			Affinity:  time.Duration(max(0, rapid.IntRange(-3, 2).Draw(t, "affinity"))) * time.Minute,
			WhenDown:  rapid.SampledFrom([]config.WhenDown{config.DownReject, config.DownPass, config.DownUseAll}).Draw(t, "down"),
		}
		for range rapid.IntRange(1, 3).Draw(t, "frontends") {
			if len(fronts) == 0 {
				break
			}
			i := rapid.IntRange(0, len(fronts)-1).Draw(t, "frontend")
			v.Frontends = append(v.Frontends, fronts[i])
			fronts = slices.Delete(fronts, i, i+1)
		}
		v.RejectUnknownPorts = rapid.IntRange(0, 2).Draw(t, "reject unknown ports") == 0 && !slices.ContainsFunc(v.Frontends, func(f config.Frontend) bool {
			return w.rest(f.Addr.Addr()) != nil // one VIP says it for an address
		})
		all := append([]string{HostGroup}, names...)
		var rest []string
		for _, g := range all {
			if rapid.IntRange(0, 3).Draw(t, "except "+g) == 0 {
				v.Except = append(v.Except, g)
			} else {
				rest = append(rest, g)
			}
		}
		visible := rest
		if rapid.Bool().Draw(t, "clients") {
			v.Clients = []string{}
			for _, g := range rest {
				if rapid.Bool().Draw(t, "client "+g) {
					v.Clients = append(v.Clients, g)
				}
			}
			visible = v.Clients
		}
		for _, g := range visible {
			if rapid.IntRange(0, 2).Draw(t, "for "+g) == 0 {
				v.For = append(v.For, config.View{Group: g, Backends: drawBackends(t, "for weight"), WhenDown: v.WhenDown})
			}
		}
		w.cfg.VIPs = append(w.cfg.VIPs, v)
	}
	w.cfg.Policy = drawPolicy(t, w.cfg)
	w.rt.Verdicts = drawVerdicts(t, w.cfg)
	gone := map[string]bool{}
	for i, p := range dirPaths {
		if p != "/" && (gone[path.Dir(p)] || rapid.IntRange(0, 4).Draw(t, "gone "+p) == 0) {
			gone[p] = true
			continue
		}
		// A directory that was made again is younger, and so is all within it.
		w.dirs[p] = uint64(i + 1)
		if p != "/" && (w.dirs[path.Dir(p)] > 100 || rapid.IntRange(0, 5).Draw(t, "again "+p) == 0) {
			w.dirs[p] += 100
		}
	}
	return w
}

func (w *world) tree(t fataler) *anchor.Tree {
	if w.anchors == nil {
		w.anchors = treeOf(t, w.cfg)
	}
	return w.anchors
}

type fataler interface{ Fatalf(string, ...any) }

func (w *world) has(group string) bool {
	return slices.ContainsFunc(w.cfg.Groups, func(g config.Group) bool { return g.Name == group })
}

func (w *world) members(tree *anchor.Tree) Membership { return walk(tree, w.dirs) }

func (w *world) state(t fataler) *State {
	tree := w.tree(t)
	s, err := Compile(w.cfg, tree, w.members(tree), w.rt)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	return s
}

// groupOf is the group of a caller in a directory.
func (w *world) groupOf(dir string) string {
	if w.groups == nil {
		w.groups = map[string]string{}
		own := map[uint64]string{}
		for _, c := range w.members(w.anchors).Cgroups {
			own[c.ID] = c.Match.Group
		}
		for _, p := range dirPaths {
			group, ok := own[w.dirs[p]]
			switch {
			case ok && group != "":
			case p == "/":
				group = HostGroup
			default:
				group = w.groups[path.Dir(p)]
			}
			w.groups[p] = group
		}
	}
	return w.groups[dir]
}

// rest is the VIP that says what becomes of the unknown ports of an address.
func (w *world) rest(a netip.Addr) *config.VIP {
	for i, v := range w.cfg.VIPs {
		if v.RejectUnknownPorts && slices.ContainsFunc(v.Frontends, func(f config.Frontend) bool { return f.Addr.Addr() == a }) {
			return &w.cfg.VIPs[i]
		}
	}
	return nil
}

// expected is the decision table, written down once more.
func (w *world) expected(group string, k bpf.FrontendKey) lbtest.Answer {
	for _, g := range w.cfg.Groups {
		if g.Name == group && !g.Translate {
			return lbtest.Untouched
		}
	}
	if v := w.vip(k); v != nil {
		return w.answer(v, group, k)
	}
	return w.expectedOfRest(group, k)
}

// vip is the one whose frontend k is.
func (w *world) vip(k bpf.FrontendKey) *config.VIP {
	for i, v := range w.cfg.VIPs {
		if slices.ContainsFunc(v.Frontends, func(f config.Frontend) bool {
			return f.Addr == k.Addr && uint8(f.Proto) == k.Proto
		}) {
			return &w.cfg.VIPs[i]
		}
	}
	return nil
}

// expectedOfRest is what k gets where it is no frontend.
func (w *world) expectedOfRest(group string, k bpf.FrontendKey) lbtest.Answer {
	if v := w.rest(k.Addr.Addr()); v != nil {
		a := w.answer(v, group, k)
		if a.Action == bpf.Balance || a.Action == bpf.RejectDown {
			return lbtest.Answer{Refused: true}
		}
		return a
	}
	return lbtest.Untouched
}

// between reports whether a change from a to b may answer so for a while: as a, as
// b, and where k is a frontend in one of them only, as if it were in neither: the
// address's other ports may go to another VIP in the same change, or their VIP may
// change, before k comes or after it goes. They do not go to a VIP that gets k before
// k does.
func between(got lbtest.Answer, a, b *world, was, will string, k bpf.FrontendKey) bool {
	if equal(got, a.expected(was, k)) || equal(got, b.expected(will, k)) {
		return true
	}
	if v, had := b.vip(k), a.rest(k.Addr.Addr()); v != nil && v == b.rest(k.Addr.Addr()) && (had == nil || had.Name != v.Name) {
		return false
	}
	return (a.vip(k) == nil) != (b.vip(k) == nil) && (equal(got, a.expectedOfRest(was, k)) || equal(got, b.expectedOfRest(will, k)))
}

// answer is what a VIP that stands for k gives the callers of a group.
func (w *world) answer(v *config.VIP, group string, k bpf.FrontendKey) lbtest.Answer {
	if slices.Contains(v.Except, group) {
		return lbtest.Answer{Action: bpf.PassExcept}
	}
	if v.Clients != nil && !slices.Contains(v.Clients, group) {
		if v.Hidden == config.HiddenReject {
			return lbtest.Answer{Action: bpf.RejectHidden}
		}
		return lbtest.Answer{Action: bpf.PassHidden}
	}
	list := v.Backends
	for _, f := range v.For {
		if f.Group == group {
			list = f.Backends
		}
	}
	var usable, all []config.Backend
	for _, b := range list {
		if b.Addr.Addr().Is4() != k.Addr.Addr().Is4() {
			continue
		}
		all = append(all, b)
		if verdict := w.rt.Verdicts[Endpoint{v.Name, b.Addr}]; b.Weight > 0 && !verdict.Drain && !verdict.Down && !verdict.Failing {
			usable = append(usable, b)
		}
	}
	if len(usable) == 0 {
		switch {
		case v.WhenDown == config.DownPass:
			return lbtest.Answer{Action: bpf.PassDown}
		case v.WhenDown == config.DownReject || len(all) == 0:
			return lbtest.Answer{Action: bpf.RejectDown}
		}
		usable = all
		if !slices.ContainsFunc(all, func(b config.Backend) bool { return b.Weight > 0 }) {
			for i := range usable {
				usable[i].Weight = 1
			}
		}
	}
	a := lbtest.Answer{Action: bpf.Balance, Backends: map[netip.AddrPort]int{}}
	var divisor uint32
	for _, b := range usable {
		divisor = gcd(divisor, b.Weight)
	}
	weights := make([]uint32, len(usable))
	for i, b := range usable {
		weights[i] = b.Weight / divisor
	}
	a.Algorithm, a.Affinity = algorithms[v.Algorithm], uint32(v.Affinity/time.Second)
	if v.Algorithm == config.Maglev {
		weights = maglevCounts(weights)
	}
	for i, b := range usable {
		if weights[i] > 0 {
			a.Backends[b.Addr] = int(weights[i])
		}
	}
	return a
}

// equal compares what a caller sees: to be left alone has several reasons, and
// so has EHOSTUNREACH.
func equal(a, b lbtest.Answer) bool {
	if a.Refused != b.Refused || effect(a.Action) != effect(b.Action) || a.Algorithm != b.Algorithm || a.Affinity != b.Affinity || len(a.Backends) != len(b.Backends) {
		return false
	}
	for addr, n := range a.Backends {
		// Which of two that weigh the same gets the place that is left over is the order's.
		if off := n - b.Backends[addr]; b.Backends[addr] == 0 || off != 0 && (a.Algorithm != bpf.Maglev || off*off > 1) {
			return false
		}
	}
	return true
}

func effect(a bpf.Action) bpf.Action {
	switch a {
	case bpf.PassExcept, bpf.PassHidden, bpf.PassDown:
		return bpf.None
	case bpf.RejectHidden:
		return bpf.RejectDown
	}
	return a
}

// check asks every question that the two worlds know, and wants an answer of
// one of them.
func check(t fataler, m *lbtest.Maps, a, b *world, after string) {
	d, _ := m.Dump()
	callers := map[uint32]bool{0: true}
	for _, r := range d.Cgroups {
		callers[r.Group] = true
	}
	index := map[string]uint32{HostGroup: 0}
	for i, g := range d.Groups {
		// A group that is not wanted has callers, or it does not matter; a
		// transit's are asked for below.
		if b.has(g.Name) || callers[i] && !strings.HasPrefix(g.Name, ">") {
			index[g.Name] = i
		}
	}
	for name, i := range index {
		if callers[i] {
			checkPolicy(t, m, i, verdictsOf(a, b, name, name), "after "+after+": "+name)
		}
		for _, k := range askedKeys() {
			got, err := m.Resolve(i, k)
			if err != nil {
				t.Fatalf("after %s: %v", after, err)
			}
			if !got.Denied && !between(got, a, b, name, name, k) {
				t.Fatalf("after %s: %s asks for %s: got %s, want %s or %s", after, name, k, got, a.expected(name, k), b.expected(name, k))
			}
		}
	}
	for _, dir := range dirPaths {
		var ids []uint64
		same := a.dirs[dir] != 0
		for p := dir; ; p = path.Dir(p) {
			ids = append(ids, b.dirs[p])
			same = same && a.dirs[p] == b.dirs[p]
			if p == "/" {
				break
			}
		}
		if !same {
			continue // another directory
		}
		group := m.Group(ids...)
		was, will := a.groupOf(dir), b.groupOf(dir)
		if got := d.Groups[group].Name; got != was && got != will && got != "" && !strings.HasPrefix(got, ">") {
			t.Fatalf("after %s: %s is in %s, want %s or %s", after, dir, got, was, will)
		}
		checkPolicy(t, m, group, verdictsOf(a, b, was, will), "after "+after+": "+dir)
		for _, k := range askedKeys() {
			got, err := m.Resolve(group, k)
			if err != nil {
				t.Fatalf("after %s: %v", after, err)
			}
			if !got.Denied && !between(got, a, b, was, will, k) {
				t.Fatalf("after %s: %s, in group %s, asks for %s: got %s, want %s or %s",
					after, dir, d.Groups[group].Name, k, got, a.expected(was, k), b.expected(will, k))
			}
		}
	}
}

var places = regexp.MustCompile(` \[[^\]]*\]`)

// text is a dump without places: equal text, equal answers.
func text(t fataler, m *lbtest.Maps) string {
	d, err := m.Dump()
	if err != nil {
		t.Fatalf("dump: %v", err)
	}
	var b strings.Builder
	if err := WriteDump(&b, d); err != nil {
		t.Fatalf("dump: %v", err)
	}
	return places.ReplaceAllString(b.String(), "")
}

// fill takes empty maps to a state.
func fill(t fataler, w *world) *lbtest.Maps {
	m, _ := filled(t, w)
	return m
}

// filled returns the mirror as well, which knows what a restart forgets: where
// the cgroups of the last state lie.
func filled(t fataler, w *world) (*lbtest.Maps, *Have) {
	m := lbtest.New(lbtest.DefaultLimits)
	have := newHave(t, m)
	converge(t, m, have, w.state(t), func(string) {})
	return m, have
}

func newHave(t fataler, m *lbtest.Maps) *Have {
	d, err := m.Dump()
	if err != nil {
		t.Fatalf("dump: %v", err)
	}
	return NewHave(d, m.Limits(), time.Unix(0, 0))
}

// converge applies plans until nothing is left to do.
func converge(t fataler, m *lbtest.Maps, have *Have, want *State, step func(string)) {
	for round := 0; ; round++ {
		if round == 20 {
			t.Fatalf("no end of it: %v, limbo %v", mustDiff(t, have, want).After, have.limbo)
		}
		plan := mustDiff(t, have, want)
		if round > 0 && len(plan.Writes) > 0 {
			t.Fatalf("round %d still writes: %v", round, plan.Writes)
		}
		for i, w := range plan.Writes {
			if slices.Contains(plan.Barriers, i) {
				m.Barrier()
			}
			if err := m.Apply(w); err != nil {
				t.Fatalf("%v", err)
			}
			have.write(w)
			step(w.String())
		}
		have.settle(plan, want)
		plan = mustDiff(t, have, want)
		if len(plan.Writes) > 0 {
			t.Fatalf("the maps are as wanted, and still: %v", plan.Writes)
		}
		if len(plan.After) == 0 && len(have.limbo) == 0 {
			return
		}
		limbo := len(have.limbo)
		m.Barrier()
		have.release(limbo)
		for _, w := range plan.After {
			if err := m.Apply(w); err != nil {
				t.Fatalf("%v", err)
			}
			have.write(w)
			step(w.String())
		}
	}
}

func mustDiff(t fataler, have *Have, want *State) Plan {
	plan, err := Diff(have, want)
	if err != nil {
		t.Fatalf("diff: %v", err)
	}
	return plan
}

// Every prefix of a change's writes is a valid data plane, and its end is what
// a fresh start gives. T22, F2.
func TestEveryPrefixIsValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawWorld(t)
		m, have := filled(t, a)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			b := drawWorld(t)
			converge(t, m, have, b.state(t), func(w string) { check(t, m, a, b, w) })
			check(t, m, b, b, "all")
			if got, want := text(t, m), text(t, fill(t, b)); got != want {
				t.Fatalf("changed:\n%s\nfresh:\n%s", got, want)
			}
			if plan := mustDiff(t, newHave(t, m), b.state(t)); len(plan.Writes)+len(plan.After) > 0 {
				t.Fatalf("after a restart: %v, %v", plan.Writes, plan.After)
			}
			a = b
		}
	})
}

// A change that is cut short after any write is finished by the next process,
// to any state. F2.
func TestCutAnywhere(t *testing.T) {
	cut := errors.New("cut")
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := drawWorld(t), drawWorld(t), drawWorld(t)
		m := fill(t, a)
		n := rapid.IntRange(0, 60).Draw(t, "writes before the cut")
		func() {
			defer func() {
				if r := recover(); r != nil && r != cut {
					panic(r)
				}
			}()
			converge(t, m, newHave(t, m), b.state(t), func(string) {
				if n--; n < 0 {
					panic(cut)
				}
			})
		}()
		m.Barrier()
		converge(t, m, newHave(t, m), c.state(t), func(string) {})
		check(t, m, c, c, "the restart")
		if got, want := text(t, m), text(t, fill(t, c)); got != want {
			t.Fatalf("restarted:\n%s\nfresh:\n%s", got, want)
		}
	})
}
