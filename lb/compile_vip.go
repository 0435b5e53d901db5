package lb

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
)

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
