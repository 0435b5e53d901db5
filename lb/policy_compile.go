package lb

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/prose"
)

// The first rule that matches decides, whatever its network's length; the kernel
// finds the longest network. So each network is resolved here against all that
// hold it: what each class of groups gets in each range of ports.

const (
	// policyWork bounds what is looked at while rules are resolved: rules that lie
	// over each other multiply. What fits the table takes a fraction of it; a busy
	// host must be through before the watchdog asks.
	policyWork = 1 << 22

	wordsPerLine = 8
)

// atom is one rule's say over some ports of one network.
type atom struct {
	rule      int
	low, high uint16
	tcp, udp  bool
}

// policyRule is a rule by classes.
type policyRule struct {
	any     bool
	classes []uint16 // rising
	action  bpf.PolicyAction
}

type policyCompiler struct {
	cfg   *config.Config
	out   *Policy
	rules []policyRule
	own   map[netip.Prefix][]atom // real networks
	rows  map[string]uint32
	ports map[string]uint32
	work  int
	words int // of the table, as far as it is known
}

// compilePolicy is nil where everything is allowed.
func compilePolicy(cfg *config.Config) (*Policy, error) { return newPolicyCompiler(cfg).compile() }

func newPolicyCompiler(cfg *config.Config) *policyCompiler {
	c := &policyCompiler{
		cfg: cfg, own: map[netip.Prefix][]atom{}, rows: map[string]uint32{}, ports: map[string]uint32{},
		out: &Policy{classes: map[string]bpf.PolicyClass{DaemonGroup: {}}, decides: make([]bool, len(cfg.Policy.Rules))},
	}
	c.out.table.Rules = uint32(len(cfg.Policy.Rules))
	return c
}

func (c *policyCompiler) compile() (*Policy, error) {
	c.classes()
	if len(c.rules) == 0 && !c.out.deny {
		return nil, nil
	}
	if err := c.atoms(); err != nil {
		return nil, err
	}
	for _, is4 := range []bool{true, false} {
		if err := c.networks(is4); err != nil {
			return nil, err
		}
	}
	table := c.out.table
	table.Classes = make([]bpf.PolicyClass, len(c.cfg.Groups)+2)
	lines, sum, err := table.Lines()
	if errors.Is(err, bpf.ErrFull) {
		return nil, c.full(uint64(c.words / wordsPerLine))
	}
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	c.out.lines, c.out.sum = uint64(lines), sum
	return c.out, nil
}

// classes puts groups that every rule treats alike, and that have one default,
// into one class. The daemon's own group is in class 0.
func (c *policyCompiler) classes() {
	groups := []string{HostGroup}
	for _, g := range c.cfg.Groups {
		groups = append(groups, g.Name)
	}
	said := make(map[string][]byte, len(groups))
	for i, r := range c.cfg.Policy.Rules {
		for _, from := range r.From {
			said[from] = binary.AppendUvarint(said[from], uint64(i))
		}
	}
	defaults := make(map[string]config.RuleAction, len(groups))
	for _, g := range c.cfg.Groups {
		defaults[g.Name] = g.Policy
	}
	known := map[string]uint16{}
	for _, g := range groups {
		deny := cmp.Or(defaults[g], c.cfg.Policy.Default) == config.Deny
		key := fmt.Sprintf("%t %s", deny, said[g])
		class, ok := known[key]
		if !ok {
			class = uint16(len(known) + 1)
			known[key] = class
		}
		c.out.classes[g] = bpf.PolicyClass{Class: class, Deny: deny}
		c.out.deny = c.out.deny || deny
		c.out.host = c.out.host || deny && g == HostGroup
	}
	for _, r := range c.cfg.Policy.Rules {
		rule := policyRule{action: actionOf(r.Action)}
		for _, from := range r.From {
			if from == config.AnyGroup {
				rule.any, rule.classes = true, nil
				break
			}
			rule.classes = append(rule.classes, c.out.classes[from].Class)
		}
		slices.Sort(rule.classes)
		rule.classes = slices.Compact(rule.classes)
		c.rules = append(c.rules, rule)
	}
}

// atoms lists what the rules name.
func (c *policyCompiler) atoms() error {
	vips := make(map[string]*config.VIP, len(c.cfg.VIPs))
	for i := range c.cfg.VIPs {
		vips[c.cfg.VIPs[i].Name] = &c.cfg.VIPs[i]
	}
	single := func(rule int, addr netip.AddrPort, tcp, udp bool) error {
		p := netip.PrefixFrom(addr.Addr(), addr.Addr().BitLen())
		c.own[p] = append(c.own[p], atom{rule, addr.Port(), addr.Port(), tcp, udp})
		return c.worked(1)
	}
	for i, r := range c.cfg.Policy.Rules {
		for _, from := range r.From {
			if _, ok := c.out.classes[from]; !ok && from != config.AnyGroup || from == DaemonGroup {
				return fmt.Errorf("policy: rule %d: unknown group %q", i+1, from)
			}
		}
		for _, t := range r.To {
			if t.VIP == "" {
				c.own[t.Prefix] = append(c.own[t.Prefix], atom{i, t.Low, t.High, t.Proto != config.UDP, t.Proto != config.TCP})
				if err := c.worked(1); err != nil {
					return err
				}
				continue
			}
			v := vips[t.VIP]
			if v == nil {
				return fmt.Errorf("policy: rule %d: unknown VIP %q", i+1, t.VIP)
			}
			for _, f := range v.Frontends {
				if err := single(i, f.Addr, f.Proto == config.TCP, f.Proto == config.UDP); err != nil {
					return err
				}
			}
			if !t.Backends {
				continue
			}
			for _, b := range backendsOf(v) {
				if err := single(i, b.Addr, serves(v, b, config.TCP), serves(v, b, config.UDP)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// namesBackends reports whether a rule is about what stands behind a VIP.
func namesBackends(cfg *config.Config) bool {
	return slices.ContainsFunc(cfg.Policy.Rules, func(r config.Rule) bool {
		return slices.ContainsFunc(r.To, func(t config.Target) bool { return t.Backends })
	})
}

// worked counts towards policyWork.
func (c *policyCompiler) worked(n int) error {
	if c.work += n; c.work > policyWork {
		return c.full(uint64(c.work))
	}
	return nil
}

// takes counts words of the table, so that one that fits nowhere is not made first.
func (c *policyCompiler) takes(n int) error {
	if c.words += n; c.words > wordsPerLine*bpf.PolicyLines {
		return c.full(uint64(c.words / wordsPerLine))
	}
	return nil
}

func (c *policyCompiler) full(wanted uint64) error {
	return &LimitError{
		Table: "policy_lines", Limit: bpf.PolicyLines, Wanted: max(wanted, bpf.PolicyLines),
		Key: prose.Plural(len(c.rules), "rule") + " of [policy] that lie over each other",
	}
}

// networks resolves those of one family, and adds those that the search needs.
func (c *policyCompiler) networks(is4 bool) error {
	var all []netip.Prefix
	lengths := map[int]bool{}
	for p := range c.own {
		if p.Addr().Is4() == is4 {
			all = append(all, p)
			lengths[p.Bits()] = true
		}
	}
	all = withMarkers(all, lengths)

	type open struct {
		prefix netip.Prefix
		atoms  []atom // its own and of all that hold it, by rule
		table  uint32
	}
	var stack []open
	for _, p := range all {
		for len(stack) > 0 && !contains(stack[len(stack)-1].prefix, p) {
			stack = stack[:len(stack)-1]
		}
		top := open{prefix: p}
		if len(stack) > 0 {
			top.atoms, top.table = stack[len(stack)-1].atoms, stack[len(stack)-1].table
		}
		own := c.own[p]
		if len(own) > 0 || len(stack) == 0 {
			top.atoms = append(slices.Clone(top.atoms), own...)
			slices.SortStableFunc(top.atoms, func(a, b atom) int { return a.rule - b.rule })
			var err error
			if top.table, err = c.resolve(top.atoms); err != nil {
				return err
			}
		}
		stack = append(stack, top)
		c.out.table.Networks = append(c.out.table.Networks, bpf.PolicyNetwork{Prefix: p, Table: top.table})
	}
	return nil
}

func contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// withMarkers adds, for each network, the shorter ones at which the kernel's binary
// search over the lengths must turn to the longer side to find it, and sorts: what
// holds others comes before them.
func withMarkers(real []netip.Prefix, lengths map[int]bool) []netip.Prefix {
	var order []int
	for n := range lengths {
		order = append(order, n)
	}
	slices.Sort(order)
	all := make(map[netip.Prefix]bool, len(real))
	for _, p := range real {
		all[p] = true
		for low, high := 0, len(order); low < high; {
			mid := (low + high) / 2
			switch n := order[mid]; {
			case n < p.Bits():
				all[netip.PrefixFrom(p.Addr(), n).Masked()] = true
				low = mid + 1
			case n == p.Bits():
				low = high
			default:
				high = mid
			}
		}
	}
	out := make([]netip.Prefix, 0, len(all))
	for p := range all {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return out
}

// resolve makes the table of ports for atoms, which are sorted by rule.
func (c *policyCompiler) resolve(atoms []atom) (uint32, error) {
	starts, ends := map[uint32][]int{}, map[uint32][]int{}
	bounds := []uint32{0}
	for i, a := range atoms {
		starts[uint32(a.low)] = append(starts[uint32(a.low)], i)
		bounds = append(bounds, uint32(a.low))
		if a.high < 65535 {
			ends[uint32(a.high)+1] = append(ends[uint32(a.high)+1], i)
			bounds = append(bounds, uint32(a.high)+1)
		}
	}
	slices.Sort(bounds)
	bounds = slices.Compact(bounds)
	if err := c.worked(len(atoms)); err != nil {
		return 0, err
	}

	var table []bpf.PolicyPorts
	var active []int // atoms, rising
	for _, port := range bounds {
		for _, i := range ends[port] {
			at, _ := slices.BinarySearch(active, i)
			active = slices.Delete(active, at, at+1)
		}
		for _, i := range starts[port] {
			at, _ := slices.BinarySearch(active, i)
			active = slices.Insert(active, at, i)
		}
		tcp, err := c.row(atoms, active, func(a *atom) bool { return a.tcp })
		if err != nil {
			return 0, err
		}
		udp, err := c.row(atoms, active, func(a *atom) bool { return a.udp })
		if err != nil {
			return 0, err
		}
		if n := len(table); n > 0 && table[n-1].TCP == tcp && table[n-1].UDP == udp {
			continue
		}
		table = append(table, bpf.PolicyPorts{Low: uint16(port), TCP: tcp, UDP: udp})
	}
	var key []byte
	for _, p := range table {
		key = binary.LittleEndian.AppendUint16(key, p.Low)
		key = binary.LittleEndian.AppendUint32(key, p.TCP)
		key = binary.LittleEndian.AppendUint32(key, p.UDP)
	}
	index, ok := c.ports[string(key)]
	if !ok {
		if err := c.takes(1 + len(table)); err != nil {
			return 0, err
		}
		index = uint32(len(c.out.table.Tables))
		c.out.table.Tables = append(c.out.table.Tables, table)
		c.ports[string(key)] = index
	}
	return index, nil
}

// row is what the active atoms of a protocol say to each class, 0 where there are
// none.
func (c *policyCompiler) row(atoms []atom, active []int, counts func(*atom) bool) (uint32, error) {
	row := bpf.PolicyRow{}
	seen := map[uint16]bool{}
	named, last := false, -1
	for _, i := range active {
		if err := c.worked(1); err != nil {
			return 0, err
		}
		a := &atoms[i]
		if !counts(a) || a.rule == last {
			continue
		}
		named, last = true, a.rule
		rule := &c.rules[a.rule]
		if rule.any {
			row.Action, row.Rule = rule.action, uint32(a.rule)+1
			c.out.decides[a.rule] = true
			break
		}
		for _, class := range rule.classes {
			if !seen[class] {
				seen[class] = true
				row.Except = append(row.Except, bpf.PolicyException{Class: class, Action: rule.action, Rule: uint32(a.rule) + 1})
				c.out.decides[a.rule] = true
			}
		}
		if err := c.worked(len(rule.classes)); err != nil {
			return 0, err
		}
	}
	if err := c.worked(1); err != nil {
		return 0, err
	}
	if !named {
		return 0, nil
	}
	slices.SortFunc(row.Except, func(a, b bpf.PolicyException) int { return cmp.Compare(a.Class, b.Class) })
	key := binary.LittleEndian.AppendUint64(nil, uint64(row.Rule)<<2|uint64(row.Action))
	for _, e := range row.Except {
		key = binary.LittleEndian.AppendUint64(key, uint64(e.Class)<<32|uint64(e.Rule)<<2|uint64(e.Action))
	}
	index, ok := c.rows[string(key)]
	if !ok {
		if err := c.takes(len(row.Except)); err != nil {
			return 0, err
		}
		c.out.table.Rows = append(c.out.table.Rows, row)
		index = uint32(len(c.out.table.Rows))
		c.rows[string(key)] = index
	}
	return index, nil
}
