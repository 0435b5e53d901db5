package lb

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// Compile says what the maps should hold for a configuration that was
// validated, the cgroups that exist, and what was decided at run time. It is
// pure. An error names a group that is not configured.
func Compile(cfg *config.Config, tree *anchor.Tree, m Membership, rt Runtime) (*State, error) {
	s := &State{cfg: cfg, verdicts: rt.Verdicts}
	known := map[string]bool{HostGroup: true}
	for _, g := range cfg.Groups {
		if known[g.Name] {
			return nil, fmt.Errorf("group %s stands twice", g.Name)
		}
		known[g.Name] = true
		deny := cmp.Or(g.Policy, cfg.Policy.Default) == config.Deny
		s.Groups = append(s.Groups, Group{Name: g.Name, Translate: g.Translate, Deny: deny, Strict: g.Strict})
	}
	if m.Self != 0 {
		known[DaemonGroup] = true
		s.Groups = append(s.Groups, Group{Name: DaemonGroup})
	}
	slices.SortFunc(s.Groups, func(a, b Group) int { return cmp.Compare(a.Name, b.Name) })

	for i := range cfg.VIPs {
		v := &cfg.VIPs[i]
		for _, family := range []uint8{4, 6} {
			c := vipCompiler{v: v, family: family, rt: rt}
			vip, err := c.compile(known)
			if err != nil {
				return nil, fmt.Errorf("vip %s: %w", v.Name, err)
			}
			if vip != nil {
				s.VIPs = append(s.VIPs, vip)
			}
		}
	}
	slices.SortFunc(s.VIPs, func(a, b *VIP) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Family, b.Family))
	})

	var err error
	if s.Policy, err = compilePolicy(cfg); err != nil {
		return nil, err
	}
	s.join(m)
	if tree != nil {
		for _, e := range tree.Edges() {
			edge := Edge{
				Node: uint32(e.From),
				Rule: Rule{Group: e.To.Group, Node: uint32(e.To.Node), Split: e.To.Split},
			}
			if edge.Rule.Group != "" && !known[edge.Rule.Group] {
				return nil, fmt.Errorf("anchor tree names group %q, which is not configured", e.To.Group)
			}
			switch e.Kind {
			case anchor.Literal:
				edge.Name = e.Name
			case anchor.Pattern:
				edge.Pattern, edge.Ordinal = true, uint32(e.Ordinal)
				edge.Prefix, edge.Suffix = e.Prefix, e.Suffix
			case anchor.Rest:
			}
			s.Edges = append(s.Edges, edge)
		}
	}
	slices.SortFunc(s.Edges, func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Name, b.Name),
			cmp.Compare(btoi(a.Pattern), btoi(b.Pattern)), cmp.Compare(a.Ordinal, b.Ordinal))
	})
	s.count()
	return s, nil
}

// WithMembers is the state with another membership of the same anchor tree and
// the same daemon. It costs what the membership does, however many VIPs there are.
func (s *State) WithMembers(m Membership) *State {
	out := *s
	out.join(m)
	return &out
}

// join replaces the cgroups.
func (s *State) join(m Membership) {
	known := make(map[string]bool, len(s.Groups))
	for _, g := range s.Groups {
		known[g.Name] = true
	}
	s.Complete, s.Walked = m.Complete, m.Walked
	s.Cgroups = make([]Cgroup, 0, len(m.Cgroups))
	self := Cgroup{ID: m.Self, Rule: Rule{Group: DaemonGroup}}
	for _, c := range m.Cgroups {
		if c.ID == m.Self {
			// What is expected below it stays.
			self.Path, self.Rule.Node = c.Path, uint32(c.match().Node)
			continue
		}
		if rule := memberRule(c, known); rule != (Rule{}) {
			s.Cgroups = append(s.Cgroups, Cgroup{c.ID, c.Path, rule})
		}
	}
	if m.Self != 0 && known[DaemonGroup] {
		s.Cgroups = append(s.Cgroups, self)
	}
	slices.SortFunc(s.Cgroups, func(a, b Cgroup) int { return cmp.Compare(a.ID, b.ID) })
	s.Cgroups = slices.CompactFunc(s.Cgroups, func(a, b Cgroup) bool { return a.ID == b.ID })
	s.need.cgroups = uint64(len(s.Cgroups))
}

// memberRule is a cgroup's word. What the tree says of the directory itself
// comes first. A member below an anchor repeats the group that it is in, so
// that its callers are found at the first look-up; below a split child it does
// not, because the entry that says which child must be the nearest.
func memberRule(m Member, known map[string]bool) Rule {
	match := m.match()
	r := Rule{Group: match.Group, Node: uint32(match.Node), Split: match.Split}
	if r.Group == "" && !strings.Contains(m.Group, "/") {
		r.Group = m.Group
	}
	if !known[r.Group] {
		r.Group, r.Split = "", false
	}
	return r
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

var algorithms = map[config.Algorithm]bpf.Algorithm{
	config.Random:           bpf.Random,
	config.Maglev:           bpf.Maglev,
	config.LeastConnections: bpf.LeastConnections,
}

// vipCompiler compiles one VIP in one family.
type vipCompiler struct {
	v      *config.VIP
	family uint8
	rt     Runtime

	out   *VIP
	index map[netip.AddrPort]uint32
}

// compile is nil where the VIP has no frontend of the family.
func (c *vipCompiler) compile(known map[string]bool) (*VIP, error) {
	c.out = &VIP{
		Name: c.v.Name, Family: c.family,
		Algorithm: algorithms[c.v.Algorithm], Affinity: uint32(c.v.Affinity / time.Second),
	}
	for _, f := range c.v.Frontends {
		if familyOf(f.Addr.Addr()) == c.family {
			c.out.Frontends = append(c.out.Frontends, bpf.FrontendKey{Addr: f.Addr, Proto: uint8(f.Proto)})
		}
	}
	if len(c.out.Frontends) == 0 {
		return nil, nil
	}
	if c.v.RejectUnknownPorts {
		for _, f := range c.out.Frontends {
			rest := netip.AddrPortFrom(f.Addr.Addr(), 0)
			c.out.Frontends = append(c.out.Frontends, bpf.FrontendKey{Addr: rest, Proto: bpf.TCP}, bpf.FrontendKey{Addr: rest, Proto: bpf.UDP})
		}
	}
	slices.SortFunc(c.out.Frontends, compareFrontends)
	c.out.Frontends = slices.Compact(c.out.Frontends)

	c.collect()
	if err := c.decide(known); err != nil {
		return nil, err
	}
	c.states()
	c.out.seal()
	return c.out, nil
}

// collect lists the backends of the family, the views' too.
func (c *vipCompiler) collect() {
	n := len(c.v.Backends)
	c.index = make(map[netip.AddrPort]uint32, n)
	c.out.Backends = make([]Backend, 0, n)
	add := func(list []config.Backend) {
		for _, b := range list {
			if familyOf(b.Addr.Addr()) != c.family {
				continue
			}
			if _, ok := c.index[b.Addr]; !ok {
				c.index[b.Addr] = 0
				c.out.Backends = append(c.out.Backends, Backend{Addr: b.Addr})
			}
		}
	}
	add(c.v.Backends)
	for _, view := range c.v.For {
		add(view.Backends)
	}
	slices.SortFunc(c.out.Backends, func(a, b Backend) int { return a.Addr.Compare(b.Addr) })
	for i, b := range c.out.Backends {
		c.index[b.Addr] = uint32(i)
	}
}

// decide is the table "who gets what" without what a group's own word says
// (translate = false): except, then clients, then for, then the VIP's own.
func (c *vipCompiler) decide(known map[string]bool) error {
	views := map[string]Outcome{}
	own := Outcome{Pool: -1}
	lazyOwn := func() Outcome {
		if own.Action == bpf.None {
			own = c.outcome(c.v.Backends, c.v.WhenDown)
		}
		return own
	}
	special := map[string]*config.View{}
	for i := range c.v.For {
		special[c.v.For[i].Group] = &c.v.For[i]
	}
	forGroup := func(view *config.View) Outcome {
		down := view.WhenDown
		if down == "" {
			down = c.v.WhenDown
		}
		return c.outcome(view.Backends, down)
	}

	switch {
	case c.v.Clients == nil:
		c.out.Default = lazyOwn()
		for _, name := range slices.Sorted(maps.Keys(special)) {
			views[name] = forGroup(special[name])
		}
	default:
		c.out.Default = Outcome{bpf.PassHidden, -1}
		if c.v.Hidden == config.HiddenReject {
			c.out.Default.Action = bpf.RejectHidden
		}
		for _, name := range slices.Sorted(slices.Values(c.v.Clients)) {
			if view := special[name]; view != nil {
				views[name] = forGroup(view)
			} else {
				views[name] = lazyOwn()
			}
		}
	}
	for _, name := range c.v.Except {
		views[name] = Outcome{bpf.PassExcept, -1}
	}
	for _, name := range slices.Sorted(maps.Keys(views)) {
		if !known[name] {
			return fmt.Errorf("unknown group %q", name)
		}
		c.out.Views = append(c.out.Views, View{name, views[name]})
	}
	return nil
}

// outcome is what a list of backends gives: those that may take new flows by
// their weights, else what whenDown says. use-all means every backend that is
// configured, drained and down ones too, by weight, or evenly where all weigh 0.
func (c *vipCompiler) outcome(list []config.Backend, down config.WhenDown) Outcome {
	weights := make([]uint32, len(c.out.Backends))
	all := make([]uint32, len(c.out.Backends))
	present := make([]uint32, len(c.out.Backends))
	ejected := c.ejected(list)
	usable, weighted, slow := false, false, false
	configured := 0
	for _, b := range list {
		i, ok := c.index[b.Addr]
		if !ok {
			continue
		}
		present[i], all[i] = 1, b.Weight
		if b.Weight > 0 {
			weighted = true
			configured++
		}
		if v := c.verdict(b.Addr); !v.Drain && !v.Down && b.Weight > 0 && !ejected[b.Addr] {
			weights[i], usable = b.Weight, true
			slow = slow || v.Tenths != 0
		}
	}
	switch {
	case usable:
		if slow {
			c.slow(weights)
		}
		return c.balance(weights, configured)
	case down == config.DownPass:
		return Outcome{bpf.PassDown, -1}
	case down == config.DownUseAll && weighted:
		return c.balance(all, configured)
	case down == config.DownUseAll && slices.Contains(present, 1):
		return c.balance(present, configured)
	}
	return Outcome{bpf.RejectDown, -1}
}

// slow counts weights in tenths: of some, not all have begun.
func (c *vipCompiler) slow(weights []uint32) {
	for i, b := range c.out.Backends {
		tenths := c.verdict(b.Addr).Tenths
		if tenths == 0 || tenths > 10 {
			tenths = 10
		}
		weights[i] *= uint32(tenths)
	}
}

// ejected are the failing backends of a list that are out for it: those that
// have failed for longest, as many as panic_threshold allows.
func (c *vipCompiler) ejected(list []config.Backend) map[netip.AddrPort]bool {
	type failure struct {
		addr  netip.AddrPort
		since time.Time
	}
	var failing []failure
	total := 0
	for _, b := range list {
		if _, ok := c.index[b.Addr]; !ok || b.Weight == 0 {
			continue
		}
		v := c.verdict(b.Addr)
		if v.Drain || v.Down {
			continue // out for another reason
		}
		total++
		if v.Failing {
			failing = append(failing, failure{b.Addr, v.Since})
		}
	}
	if len(failing) == 0 {
		return nil
	}
	if h := c.v.Health; h != nil {
		if most := total * int(h.PanicThreshold) / 100; most < len(failing) {
			slices.SortFunc(failing, func(a, b failure) int {
				return cmp.Or(a.since.Compare(b.since), a.addr.Compare(b.addr))
			})
			failing = failing[:most]
		}
	}
	out := make(map[netip.AddrPort]bool, len(failing))
	for _, f := range failing {
		out[f.addr] = true
	}
	return out
}

func (c *vipCompiler) verdict(addr netip.AddrPort) Verdict {
	if len(c.rt.Verdicts) == 0 {
		return Verdict{}
	}
	return c.rt.Verdicts[Endpoint{c.v.Name, addr}]
}

// balance makes a pool, or finds the equal one.
func (c *vipCompiler) balance(weights []uint32, configured int) Outcome {
	counts := slotCounts
	if c.out.Algorithm == bpf.Maglev {
		counts = func(weights []uint32, _ uint32) []uint32 { return maglevPlaces(weights, configured) }
	}
	var pool Pool
	var divisor uint32
	for _, w := range weights {
		divisor = gcd(divisor, w)
	}
	for i, n := range counts(weights, MaxSlots) {
		if n == 0 {
			continue
		}
		s := Share{Backend: uint32(i), Slots: n}
		if c.out.Algorithm == bpf.Maglev {
			s.Weight = weights[i] / divisor
		}
		pool = append(pool, s)
	}
	for i, p := range c.out.Pools {
		if slices.Equal(p, pool) {
			return Outcome{bpf.Balance, i}
		}
	}
	c.out.Pools = append(c.out.Pools, pool)
	return Outcome{bpf.Balance, len(c.out.Pools) - 1}
}

// states says of each backend whether it stands in a pool, and if not, whether
// flows that have it may keep it.
func (c *vipCompiler) states() {
	for i := range c.out.Backends {
		b := &c.out.Backends[i]
		b.State = bpf.BackendDraining
		if v := c.verdict(b.Addr); v.Down || v.Failing {
			b.State = bpf.BackendDown
		}
	}
	for _, p := range c.out.Pools {
		for _, s := range p {
			c.out.Backends[s.Backend].State = bpf.BackendActive
		}
	}
}

func familyOf(a netip.Addr) uint8 {
	if a.Is4() {
		return 4
	}
	return 6
}

func compareFrontends(a, b bpf.FrontendKey) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Proto, b.Proto))
}

// count fills need.
func (s *State) count() {
	n := need{groups: uint64(len(s.Groups)) + 1, cgroups: uint64(len(s.Cgroups))}
	if s.Policy != nil {
		n.policy = s.Policy.lines
	}
	for _, v := range s.VIPs {
		n.frontends += uint64(len(v.Frontends))
		n.cells += 1 + uint64(len(v.Views))
		n.views += uint64(len(v.Views))
		n.backends += uint64(len(v.Backends))
		for _, p := range v.Pools {
			n.slots += uint64(p.Size())
		}
	}
	for _, e := range s.Edges {
		if e.Pattern {
			n.patterns++
		} else {
			n.expect++
		}
	}
	s.need = n
}

// sum stands for a VIP's content: equal sums, equal content.
type sum [16]byte

// seal computes the sums of a finished VIP.
func (v *VIP) seal() {
	h := sealer{h: sha256.New()}
	h.str(v.Name)
	h.num(uint64(v.Family), uint64(v.Algorithm), uint64(v.Affinity), uint64(len(v.Backends)))
	for _, b := range v.Backends {
		h.addr(b.Addr)
		h.num(uint64(b.State))
	}
	h.num(uint64(len(v.Pools)))
	for _, p := range v.Pools {
		h.num(uint64(len(p)))
		for _, s := range p {
			h.num(uint64(s.Backend)<<32|uint64(s.Slots), uint64(s.Weight))
		}
	}
	h.num(uint64(v.Default.Action), uint64(v.Default.Pool), uint64(len(v.Views)))
	for _, w := range v.Views {
		h.str(w.Group)
		h.num(uint64(w.Action), uint64(w.Pool))
	}
	v.tables = h.sum()
	for _, f := range v.Frontends {
		h.addr(f.Addr)
		h.num(uint64(f.Proto))
	}
	v.whole = h.sum()
}

// sealer feeds a hash without ambiguity: every string has its length before it.
type sealer struct {
	h   hash.Hash
	buf []byte
}

func (s *sealer) num(values ...uint64) {
	for _, v := range values {
		s.buf = binary.LittleEndian.AppendUint64(s.buf, v)
	}
}

func (s *sealer) str(v string) {
	s.num(uint64(len(v)))
	s.buf = append(s.buf, v...)
}

func (s *sealer) addr(a netip.AddrPort) {
	b := a.Addr().As16()
	s.num(uint64(a.Port()))
	s.buf = append(s.buf, b[:]...)
}

func (s *sealer) sum() (out sum) {
	s.h.Write(s.buf)
	s.buf = s.buf[:0]
	copy(out[:], s.h.Sum(nil))
	return out
}
