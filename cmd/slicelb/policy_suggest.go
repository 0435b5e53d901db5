package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
)

func newPolicySuggest(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "suggest",
		Short: "Print the rules that allow what was seen",
		Long: `Print, as TOML, the rules that allow what was seen since the data plane was made,
and nothing else: for each group the VIPs that it called, and the addresses that
rules with the action "audit" let it call. What was denied is left out.

To get from no policy to one that denies by default: audit the networks that
matter ("from = [\"any\"]", "to = [\"0.0.0.0/0\", \"::/0\"]"), wait, put what this
prints into a file of conf.d, see with "slicelb policy try" what it would change,
and set the default.`,
		Example: "  slicelb policy suggest > /etc/slicelb/conf.d/60-policy.toml",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := g.client().Policy(cmd.Context())
			if err != nil {
				return err
			}
			text, rules := suggestion(p)
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
func suggestion(p *api.Policy) (string, int) {
	to := map[string][]string{}
	for _, c := range p.Calls {
		if n := c.Counters; c.VIP != "" && n.Connects+n.Flows+n.Passed+n.Rejected > 0 {
			to[c.Group] = append(to[c.Group], c.VIP)
		}
	}
	var groups []string
	networks := map[string][]string{}
	for _, s := range p.Seen {
		networks[s.Group] = append(networks[s.Group], s.Address+"/"+s.Proto)
	}
	for group := range networks {
		slices.Sort(networks[group])
		to[group] = append(to[group], networks[group]...)
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
			fmt.Fprintf(&b, "  %q,\n", target)
		}
		fmt.Fprintln(&b, "]\naction = \"allow\"")
	}
	return b.String(), len(groups)
}
