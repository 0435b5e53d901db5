package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/prose"
)

func newPolicySuggest(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "suggest",
		Short: "Print the rules that allow what was seen",
		Long: `Print, as TOML, the rules that allow what was seen, and nothing else: for each group
the VIPs that it called since the data plane was made, and the addresses that rules
with the action "audit" let it call, since a reload brought the first such rule.
Where an audit saw some of a VIP's frontends called, and not all, those are named
instead of the VIP; without an audit nobody knows which. What was denied is left
out. What a UDP server answers is a call too, to a port that is another one each
time: where a group sent to eight or more ports of an address that clients are
given, they stand in one line, as "192.0.2.1:32768-65535/udp".

To get from no policy to one that denies by default: audit the networks that
matter, by a rule with from = ["any"] and to = ["0.0.0.0/0", "::/0"], wait, put what
this prints into a file of conf.d, see with "slicelb policy try" what it would
change, and set the default.`,
		Example: "  slicelb policy suggest > /etc/slicelb/conf.d/60-policy.toml",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := g.client().Policy(cmd.Context())
			if err != nil {
				return err
			}
			cfg, err := g.runningConfig(cmd.Context())
			if err != nil {
				return err
			}
			text, rules := suggestion(p, cfg)
			if rules == 0 {
				return &exitError{code: exitFailed, err: errors.New("nothing was seen that a rule could allow"),
					hint: `a rule with from = ["any"], to = ["0.0.0.0/0", "::/0"] and action = "audit" sees every address`}
			}
			if p.Lost > 0 {
				fmt.Fprintf(g.stderr, "slicelb: %s found no room in the kernel's table: their addresses are not in this\n", prose.Plural(int(p.Lost), "audited call"))
			}
			_, err = fmt.Fprint(g.stdout, text)
			return err
		},
	}
	return cmd
}

// suggestion is TOML of one rule for each group, and how many there are.
func suggestion(p *api.Policy, cfg *config.Config) (string, int) {
	to := map[string][]string{}
	seen, said := seenCalls(p), map[seenCall]bool{}
	for _, c := range p.Calls {
		if n := c.Counters; c.VIP == "" || n.Connects+n.Flows+n.Passed+n.Rejected == 0 {
			continue
		}
		if list, all := calledFrontends(seen, cfg, c.Group, c.VIP); all {
			to[c.Group] = append(to[c.Group], c.VIP)
			for _, f := range list {
				said[callOf(c.Group, f)] = true
			}
		}
	}
	beside := slices.DeleteFunc(slices.Clone(p.Seen), func(s api.Seen) bool { return said[seenCall{s.Group, s.Address, s.Proto}] })
	var groups []string
	for group, networks := range seenNetworks(beside) {
		to[group] = append(to[group], networks...)
	}
	for group := range to {
		groups = append(groups, group)
	}
	slices.Sort(groups)

	var b strings.Builder
	fmt.Fprintln(&b, "# What was seen, and nothing else. With this default, all else is denied that is a")
	fmt.Fprintln(&b, "# VIP or that a rule names:")
	fmt.Fprintln(&b, "# [policy]")
	fmt.Fprintln(&b, `# default = "deny"`)
	for _, group := range groups {
		fmt.Fprintf(&b, "\n[[policy.rule]]\nfrom = [%q]\nto = [\n", group)
		for _, target := range to[group] {
			note := ""
			if strings.HasSuffix(target, answersSuffix) {
				note = " # many ports: answers of a UDP server, it seems"
			}
			fmt.Fprintf(&b, "  %q,%s\n", target, note)
		}
		fmt.Fprintln(&b, "]\naction = \"allow\"")
	}
	return b.String(), len(groups)
}

// calledFrontends are those of a VIP that a group is known to have called. Counters
// know the VIP alone: all may be meant, unless an audit saw some of them called.
func calledFrontends(seen map[seenCall]bool, cfg *config.Config, group, vip string) (list []config.Frontend, all bool) {
	i := slices.IndexFunc(cfg.VIPs, func(v config.VIP) bool { return v.Name == vip })
	if i < 0 {
		return nil, true
	}
	for _, f := range cfg.VIPs[i].Frontends {
		if seen[callOf(group, f)] {
			list = append(list, f)
		}
	}
	if len(list) == 0 {
		list = cfg.VIPs[i].Frontends
	}
	return list, len(list) == len(cfg.VIPs[i].Frontends)
}

// seenCall is what an audit saw, in its words.
type seenCall struct{ group, address, proto string }

func callOf(group string, f config.Frontend) seenCall {
	return seenCall{group, f.Addr.String(), f.Proto.String()}
}

func seenCalls(p *api.Policy) map[seenCall]bool {
	out := make(map[seenCall]bool, len(p.Seen))
	for _, s := range p.Seen {
		out[seenCall{s.Group, s.Address, s.Proto}] = true
	}
	return out
}

const (
	// firstShortLived is the first port that Linux gives to clients, where nobody
	// has changed net.ipv4.ip_local_port_range; other systems' are higher.
	firstShortLived = 32768
	// answersFrom is from how many of such ports of one address on they are not
	// named one by one.
	answersFrom   = 8
	answersSuffix = ":32768-65535/udp"
)

// seenNetworks is what each group was seen to call beside VIPs. What a UDP server
// answers is a call as well, to a port that its client has for that moment: where
// a group called many such ports of an address, all of them stand in one line.
func seenNetworks(seen []api.Seen) map[string][]string {
	type host struct {
		group string
		addr  netip.Addr
	}
	shortLived := map[host][]string{}
	out := map[string][]string{}
	for _, s := range seen {
		name := s.Address + "/" + s.Proto
		at, err := netip.ParseAddrPort(s.Address)
		if err == nil && s.Proto == config.UDP.String() && at.Port() >= firstShortLived {
			h := host{s.Group, at.Addr()}
			shortLived[h] = append(shortLived[h], name)
			continue
		}
		out[s.Group] = append(out[s.Group], name)
	}
	for h, names := range shortLived {
		if len(names) >= answersFrom {
			text := h.addr.String()
			if h.addr.Is6() {
				text = "[" + text + "]"
			}
			names = []string{text + answersSuffix}
		}
		out[h.group] = append(out[h.group], names...)
	}
	for _, names := range out {
		slices.Sort(names)
	}
	return out
}
