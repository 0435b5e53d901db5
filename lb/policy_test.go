package lb

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// networks that lie in each other, and beside the VIPs' and backends' addresses
// of drawWorld.
var networks = []string{"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.0/30", "10.0.0.2/32", "10.0.0.77/32", "192.0.2.0/24",
	"192.0.2.1/32", "::/0", "fd00::/8", "fd00::/64", "fd00::/126", "fd00::2/128", "2001:db8::/32"}

var asked = []string{"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.77:80", "10.0.0.77:443", "10.1.0.1:80", "10.1.0.1:1",
	"192.0.2.1:80", "192.0.2.2:80", "192.0.2.200:65535", "172.16.0.1:0", "[fd00::1]:80", "[fd00::2]:80", "[fd00::2]:81",
	"[fd00::77]:80", "[fd01::1]:80", "[2001:db8::1]:80", "[2001:db9::1]:80"}

func drawTarget(t *rapid.T, vips []string) config.Target {
	if len(vips) > 0 && rapid.IntRange(0, 2).Draw(t, "to a VIP") == 0 {
		return config.Target{VIP: rapid.SampledFrom(vips).Draw(t, "VIP"), Backends: rapid.Bool().Draw(t, "+backends")}
	}
	target := config.Target{Prefix: netip.MustParsePrefix(rapid.SampledFrom(networks).Draw(t, "network")), High: 65535,
		Proto: rapid.SampledFrom([]config.Proto{0, 0, config.TCP, config.UDP}).Draw(t, "protocol")}
	ports := []uint16{1, 79, 80, 81, 443, 65535}
	if rapid.Bool().Draw(t, "ports") {
		target.Low = rapid.SampledFrom(ports).Draw(t, "low")
		target.High = max(target.Low, rapid.SampledFrom(ports).Draw(t, "high"))
	}
	return target
}

func drawPolicy(t *rapid.T, cfg *config.Config) config.Policy {
	p := config.Policy{Default: config.Allow}
	if rapid.IntRange(0, 2).Draw(t, "no policy") == 0 {
		return p
	}
	actions := []config.RuleAction{config.Allow, config.Deny}
	p.Default = rapid.SampledFrom(actions).Draw(t, "default")
	from := []string{HostGroup, config.AnyGroup}
	for i := range cfg.Groups {
		from = append(from, cfg.Groups[i].Name)
		cfg.Groups[i].Policy = rapid.SampledFrom([]config.RuleAction{"", "", config.Allow, config.Deny}).Draw(t, "group's default")
	}
	var vips []string
	for _, v := range cfg.VIPs {
		vips = append(vips, v.Name)
	}
	for range rapid.IntRange(0, 8).Draw(t, "rules") {
		r := config.Rule{Action: rapid.SampledFrom(append(actions, config.Audit)).Draw(t, "action"),
			From: rapid.SliceOfNDistinct(rapid.SampledFrom(from), 1, 2, rapid.ID).Draw(t, "from")}
		for range rapid.IntRange(1, 3).Draw(t, "targets") {
			r.To = append(r.To, drawTarget(t, vips))
		}
		p.Rules = append(p.Rules, r)
	}
	return p
}

var questions = sync.OnceValue(func() (out []bpf.FrontendKey) {
	for _, a := range asked {
		for _, proto := range []uint8{bpf.TCP, bpf.UDP} {
			out = append(out, bpf.FrontendKey{Addr: netip.MustParseAddrPort(a), Proto: proto})
		}
	}
	return out
})

// What the compiled table says, looked up as the kernel does, is what the rules
// say in their order; a rule that decides is not said to be covered by others.
func TestPolicyIsFirstMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		policy, err := compilePolicy(w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		groups := []string{HostGroup, DaemonGroup}
		for _, g := range w.cfg.Groups {
			groups = append(groups, g.Name)
		}
		covered := map[int]bool{}
		list, err := CoveredRules(w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			covered[c.Rule] = true
			if len(c.By) == 0 || !slices.IsSorted(c.By) || c.By[0] < 0 || c.By[len(c.By)-1] >= c.Rule {
				t.Fatalf("rule %d is covered by %v", c.Rule, c.By)
			}
		}
		table := bpf.Policy{}
		if policy != nil {
			table = policy.table
			for _, g := range groups {
				table.Classes = append(table.Classes, policy.classes[g])
			}
		}
		index := table.Index()
		for i, g := range groups {
			for _, k := range questions() {
				want := Judge(w.cfg, g, k.Addr, config.Proto(k.Proto))
				action, rule := index.Decide(uint32(i), k.Addr, k.Proto, want.VIP != "")
				if policy == nil { // everything is allowed
					action = want.Action
					if want.Action == bpf.PolicyDeny || want.Rule >= 0 {
						t.Fatalf("no policy, and %s to %s: %+v", g, k, want)
					}
				}
				// Who is exempt is not told by the table from who is not concerned.
				same := action == want.Action || g == DaemonGroup && action != bpf.PolicyDeny && want.Action != bpf.PolicyDeny
				if !same || int(rule)-1 != want.Rule {
					t.Fatalf("%s to %s: %s by rule %d, want %s by rule %d", g, k, action, rule, want.Action, want.Rule+1)
				}
				if want.Rule >= 0 && (covered[want.Rule] || !policy.Decides(want.Rule)) {
					t.Fatalf("rule %d decides, and it is said not to", want.Rule)
				}
			}
		}
	})
}

// verdictsOf are the answers that a caller may get while a goes over into b: of
// its old group or its new one, under the old policy or the new one. A group that
// is not there yet is the host's; one that is not there any more has the policy
// of another.
func verdictsOf(a, b *world, was, will string) func(bpf.FrontendKey) (may [4]bool) {
	type asked struct {
		w    *world
		name string
	}
	var all []asked
	for _, w := range []*world{a, b} {
		for _, name := range []string{was, will} {
			switch {
			case name == HostGroup || w.has(name):
				all = append(all, asked{w, name})
			case w == a:
				all = append(all, asked{w, HostGroup})
			default:
				all = append(all, asked{w, HostGroup})
				for _, g := range w.cfg.Groups {
					all = append(all, asked{w, g.Name})
				}
			}
		}
	}
	return func(k bpf.FrontendKey) (may [4]bool) {
		for _, q := range all {
			j := q.w.judge(q.name, k)
			may[j.Action] = true
			// A policy and a frontend come and go one after the other: a default
			// is asked while the frontend is there.
			if j.Rule < 0 && j.VIP != "" {
				may[bpf.PolicyDefault] = true
			}
		}
		// "Allowed" and "does not concern it" are one to a caller.
		may[bpf.PolicyAllow] = may[bpf.PolicyAllow] || may[bpf.PolicyDefault]
		return may
	}
}

type call struct {
	group string
	key   bpf.FrontendKey
}

// judge is Judge, once for each call.
func (w *world) judge(group string, k bpf.FrontendKey) Judgement {
	if w.judged == nil {
		w.judged = map[call]Judgement{}
	}
	j, ok := w.judged[call{group, k}]
	if !ok {
		j = Judge(w.cfg, group, k.Addr, config.Proto(k.Proto))
		w.judged[call{group, k}] = j
	}
	return j
}

func checkPolicy(t fataler, m *lbtest.Maps, group uint32, allowed func(bpf.FrontendKey) [4]bool, what string) {
	for _, k := range questions() {
		got, _ := m.Policy(group, k)
		if got == bpf.PolicyDefault {
			got = bpf.PolicyAllow
		}
		if may := allowed(k); !may[got] {
			t.Fatalf("%s: policy says %s of %s, which neither policy does", what, got, k)
		}
	}
}

// ruled is a configuration of n rules of one kind.
func ruled(n int, rule func(i int) config.Rule) *config.Config {
	cfg := &config.Config{Groups: []config.Group{{Name: "web", Translate: true}}, Policy: config.Policy{Default: config.Allow}}
	for i := range n {
		cfg.Policy.Rules = append(cfg.Policy.Rules, rule(i))
	}
	return cfg
}

func network(format string, args ...any) config.Target {
	return config.Target{Prefix: netip.MustParsePrefix(fmt.Sprintf(format, args...)), High: 65535}
}

// Ten thousand rules, and more, fit: of single addresses, of networks of many
// lengths, of ports, of groups. Rules that multiply are refused before a write, and
// before they have taken much to find out.
// fault F14
func TestManyRules(t *testing.T) {
	any := []string{config.AnyGroup}
	many := func(i int) []string { return []string{fmt.Sprintf("g%d", i)} }
	for _, tt := range []struct {
		what string
		n    int
		rule func(i int) config.Rule
		full bool
	}{
		{"addresses", 16000, func(i int) config.Rule {
			return config.Rule{From: any, To: []config.Target{network("10.%d.%d.%d/32", i>>16, i>>8&255, i&255)}, Action: config.Deny}
		}, false},
		{"IPv6 addresses", 10000, func(i int) config.Rule {
			return config.Rule{From: any, To: []config.Target{network("fd00:%x::%x/128", i&7, i)}, Action: config.Deny}
		}, false},
		{"lengths", 10000, func(i int) config.Rule {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(i), byte(i >> 8), byte(i * 7), 0}), 12+i%18).Masked()
			return config.Rule{From: any, To: []config.Target{{Prefix: p, High: 65535}}, Action: config.Deny}
		}, false},
		{"ports", 10000, func(i int) config.Rule {
			target := network("10.0.0.0/8")
			target.Low, target.High = uint16(6*i+1), uint16(6*i+3)
			return config.Rule{From: any, To: []config.Target{target}, Action: config.Audit}
		}, false},
		{"groups", 10000, func(i int) config.Rule {
			return config.Rule{From: many(i), To: []config.Target{network("10.%d.%d.0/24", i>>8, i&255)}, Action: config.Deny}
		}, false},
		{"groups to one network", 10000, func(i int) config.Rule {
			return config.Rule{From: many(i), To: []config.Target{network("10.0.0.0/8")}, Action: config.Deny}
		}, false},
		{"ports of a network, and networks in it", 10000, func(i int) config.Rule {
			target := network("10.0.0.0/8")
			if i%2 == 0 {
				target = network("10.%d.%d.0/24", i>>8, i&255)
			} else {
				target.Low, target.High = uint16(6*i+1), uint16(6*i+3)
			}
			return config.Rule{From: any, To: []config.Target{target}, Action: config.Deny}
		}, true},
		{"groups to a network, and networks in it", 10000, func(i int) config.Rule {
			if i%2 == 0 {
				return config.Rule{From: many(i), To: []config.Target{network("10.%d.%d.0/24", i>>8, i&255)}, Action: config.Deny}
			}
			return config.Rule{From: many(i), To: []config.Target{network("10.0.0.0/8")}, Action: config.Deny}
		}, true},
		{"groups to ranges of ports that lie in each other", 10000, func(i int) config.Rule {
			target := network("10.0.0.0/8")
			target.Low = uint16(i + 1)
			return config.Rule{From: many(i), To: []config.Target{target}, Action: config.Deny}
		}, true},
		{"all, to ranges of ports that lie in each other", 10000, func(i int) config.Rule {
			target := network("10.0.0.0/8")
			target.Low = uint16(i + 1)
			return config.Rule{From: any, To: []config.Target{target}, Action: config.Deny}
		}, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			cfg := ruled(tt.n, tt.rule)
			for i := range tt.n {
				if name := tt.rule(i).From[0]; name != config.AnyGroup {
					cfg.Groups = append(cfg.Groups, config.Group{Name: name, Translate: true})
				}
			}
			m := lbtest.New(lbtest.DefaultLimits)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			state, err := Compile(cfg, nil, Membership{}, Runtime{})
			runtime.ReadMemStats(&after)
			if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 192 {
				t.Errorf("to compile it took %d MiB", n)
			} else {
				t.Logf("%d MiB", n)
			}
			if err == nil {
				_, err = Diff(newHave(t, m), state)
			}
			var limit *LimitError
			switch full := errors.As(err, &limit); {
			case full != tt.full || !full && err != nil:
				t.Fatalf("error %v", err)
			case full:
				if limit.Table != "policy_lines" || !strings.Contains(limit.Key, "10000 rules of [policy]") || !errors.Is(err, bpf.ErrFull) {
					t.Errorf("%v", err)
				}
				return
			}
			// And beside itself, so that the next one can take its place.
			if lines := state.Policy.lines; lines > bpf.PolicyLines/2 {
				t.Errorf("%d of %d lines", lines, bpf.PolicyLines)
			}
			index := state.Policy.table.Index()
			for _, i := range []int{0, 1, tt.n / 2, tt.n - 1} {
				r := tt.rule(i)
				addr := netip.AddrPortFrom(r.To[0].Prefix.Addr(), r.To[0].High)
				want := Judge(cfg, r.From[0], addr, config.TCP)
				if r.From[0] == config.AnyGroup {
					want = Judge(cfg, HostGroup, addr, config.TCP)
				}
				state.Policy.table.Classes = []bpf.PolicyClass{state.Policy.classes[HostGroup], state.Policy.classes[r.From[0]]}
				if action, rule := index.Decide(uint32(btoi(r.From[0] != config.AnyGroup)), addr, bpf.TCP, false); action != want.Action || int(rule)-1 != want.Rule {
					t.Errorf("rule %d: %s by rule %d, want %s by rule %d", i+1, action, rule, want.Action, want.Rule+1)
				}
			}
		})
	}
}

// Where the new policy finds no room beside the old one, nothing is written, and
// the old one stays.
// fault F14
func TestPolicyBesideItself(t *testing.T) {
	limits := lbtest.DefaultLimits
	limits.PolicyLines = 700
	m := lbtest.New(limits)
	apply := func(n int, to string) error {
		cfg := ruled(n, func(i int) config.Rule {
			return config.Rule{From: []string{"web"}, Action: config.Deny, To: []config.Target{network(to, i)}}
		})
		state, err := Compile(cfg, nil, Membership{}, Runtime{})
		if err != nil {
			t.Fatal(err)
		}
		have := newHave(t, m)
		plan, err := Diff(have, state)
		for _, w := range plan.Writes {
			if err := m.Apply(w); err != nil {
				t.Fatal(err)
			}
		}
		m.Barrier()
		return err
	}
	if err := apply(200, "10.0.0.%d/32"); err != nil {
		t.Fatal(err)
	}
	before := text(t, m)
	var limit *LimitError
	if err := apply(250, "10.0.1.%d/32"); !errors.As(err, &limit) || limit.Table != "policy_lines" || !limit.Change {
		t.Fatalf("error %v", err)
	}
	if after := text(t, m); after != before {
		t.Errorf("was\n%s, is\n%s", before, after)
	}
	if err := apply(1, "10.0.1.%d/32"); err != nil {
		t.Errorf("a shorter one: %v", err)
	}
}

// The same rules go on counting where they are written anew for other groups, here the
// daemon's. Other rules begin at zero, and so do those that are about another group,
// which may have the class of the one before.
func TestRulesGoOnCounting(t *testing.T) {
	m := lbtest.New(lbtest.DefaultLimits)
	apply := func(action config.RuleAction, from string, self uint64, groups ...string) (bank uint8, written bool) {
		t.Helper()
		cfg := ruled(3, func(i int) config.Rule {
			return config.Rule{From: []string{from}, Action: action, To: []config.Target{network("10.0.0.%d/32", i)}}
		})
		cfg.Groups = nil
		for _, name := range groups {
			cfg.Groups = append(cfg.Groups, config.Group{Name: name, Translate: true})
		}
		state, err := Compile(cfg, nil, Membership{Complete: true, Self: self}, Runtime{})
		if err != nil {
			t.Fatal(err)
		}
		plan, err := Diff(newHave(t, m), state)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range plan.Writes {
			if p, ok := w.(bpf.SetPolicyTable); ok {
				bank, written = p.Bank, true
			}
			if err := m.Apply(w); err != nil {
				t.Fatal(err)
			}
		}
		m.Barrier()
		return bank, written
	}
	last, _ := apply(config.Deny, "web", 0, "web", "jobs")
	for _, tt := range []struct {
		what   string
		action config.RuleAction
		from   string
		self   uint64
		groups []string
		goesOn bool
	}{
		{"the daemon's group", config.Deny, "web", 77, []string{"web", "jobs"}, true},
		{"another action", config.Audit, "web", 77, []string{"web", "jobs"}, false},
		{"about another group", config.Audit, "jobs", 77, []string{"web", "jobs"}, false},
		{"about a new group", config.Audit, "new", 77, []string{"web", "new"}, false},
	} {
		bank, written := apply(tt.action, tt.from, tt.self, tt.groups...)
		if !written || (bank == last) != tt.goesOn {
			t.Errorf("%s: written %t, bank %d after %d", tt.what, written, bank, last)
		}
		last = bank
	}
}
