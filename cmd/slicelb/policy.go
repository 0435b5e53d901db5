package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
)

func newPolicy(g *globals) *cobra.Command {
	return family("policy", "List, try and suggest the rules of policy",
		"List the rules that say who may connect where, with what they have decided;\nsay what other rules would change; print rules that allow what was seen.",
		newPolicyList(g), newPolicyTry(g), newPolicySuggest(g))
}

func newPolicyList(g *globals) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the rules",
		Long: `List the rules that are in force, in their order: of those that name what is
called and who calls, the first decides. HITS counts the calls that a rule has
decided since this policy is in force; "never" stands for a rule to which those
before it leave nothing. The last line is the default.`,
		Example: "  slicelb policy list\n  slicelb policy list -o json | jq '.rules[] | select(.hits == 0).origin'",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := g.client().Policy(cmd.Context())
			if err != nil {
				return err
			}
			return out.print(g.stdout, p, ruleTable(p))
		},
	}
	out.flags(cmd)
	return cmd
}

func ruleTable(p *api.Policy) *table {
	t := &table{columns: []string{"RULE", "FROM", "TO", "ACTION", "HITS", "ORIGIN"}}
	for i, r := range p.Rules {
		hits := count(r.Hits)
		if !r.Decides {
			hits = "never"
		}
		t.add(strconv.Itoa(i+1), list(r.From), list(r.To), r.Action, hits, r.Origin)
	}
	for _, d := range p.Groups {
		t.add("-", d.Group, "what no rule decides", d.Action, "-", "-")
	}
	t.add("-", "any", "what no rule decides", p.Default, "-", "-")
	return t
}

// networksOr names where calls went: a VIP, or networks that rules name.
func networksOr(vip string) string {
	if vip == "" {
		return "networks of rules"
	}
	return "VIP " + vip
}

// summaryText is the policy in a line; "" where there is none.
func summaryText(s api.PolicySummary) string {
	if s.Rules == 0 && s.Default != "deny" && s.Denied == 0 {
		return ""
	}
	return strings.Join([]string{prose.Plural(s.Rules, "rule"), s.Default + " by default", fmt.Sprintf("%d denied", s.Denied)}, ", ")
}
