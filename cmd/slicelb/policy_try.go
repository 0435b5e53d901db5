package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/prose"
)

func newPolicyTry(g *globals) *cobra.Command {
	var out output
	var all bool
	cmd := &cobra.Command{
		Use:   "try",
		Short: "Say what another policy would change",
		Long: `Say what the policy of another configuration would change of what is known to
have been called: the VIPs that each group has called, what audits have seen, the
decisions that "slicelb observe" keeps, and the TCP and UDP connections that
processes of this network namespace have now. Nothing is changed.

A connection is taken for one of the cgroup that its socket was made in. One to a
backend of a VIP that its group has called is taken for one to that VIP.
Connections need the cgroup tree to be readable; run it as root to see all.

Connections and most decisions have a cgroup, and so the group that it is in under
the other configuration. Counters and audits have the group of now alone. Where its
cgroups come to be in several groups, and not all of these may call what it has
called, each of them is listed, with a question mark at what may change.

An audit lets a call through, as allow does: that is no change.

Exit status 0 when nothing would change, 1 when something would or may.`,
		Example: "  slicelb policy try -c ./new.toml\n  slicelb policy try -c /etc/slicelb --all",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			next, warnings, err := g.load(cmd.Context())
			if err != nil {
				return badConfig(warnings, err)
			}
			now, err := g.runningConfig(cmd.Context())
			if err != nil {
				return err
			}
			t := &trial{seen: map[called]string{}}
			if t.now, err = grouped(now); err != nil {
				return err
			}
			if t.next, err = grouped(next); err != nil {
				return err
			}
			if err := t.gather(cmd.Context(), g); err != nil {
				return err
			}
			tries := t.judge(all)
			if err := out.print(g.stdout, tries, triedTable(tries)); err != nil {
				return err
			}
			changes, maybe := 0, 0
			for _, c := range tries {
				switch {
				case c.changes() && c.Maybe:
					maybe++
				case c.changes():
					changes++
				}
			}
			fmt.Fprintf(g.stderr, "slicelb: %d of %s would change\n", changes, prose.Plural(len(t.seen), "call"))
			if maybe > 0 {
				fmt.Fprintf(g.stderr, "slicelb: %d more may: which cgroup of the group has called is not known\n", maybe)
			}
			if changes+maybe > 0 {
				return &exitError{code: exitFailed}
			}
			return nil
		},
	}
	out.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "list what would not change, too")
	return cmd
}

// tried is what the two policies say of it.
type tried struct {
	Group   string `json:"group"`
	Then    string `json:"group_then"` // under the other configuration
	Address string `json:"address"`
	VIP     string `json:"vip,omitempty"`
	Now     string `json:"now"`   // allow, audit, deny
	Next    string `json:"then"`  // the same, under the other
	By      string `json:"by"`    // what says so then: where the rule stands, or "default"
	Known   string `json:"known"` // where the call is known from
	Maybe   bool   `json:"maybe"` // whether a cgroup that is in that group then has made it is not known
}

// changes: an audit lets through, as allow does.
func (t tried) changes() bool {
	deny := bpf.PolicyDeny.String()
	return (t.Now == deny) != (t.Next == deny)
}

func actionText(a bpf.PolicyAction) string {
	if a == bpf.PolicyDefault {
		return bpf.PolicyAllow.String() // it does not concern the call
	}
	return a.String()
}

func triedTable(list []tried) *table {
	t := &table{columns: []string{"GROUP", "ADDRESS", "VIP", "NOW", "THEN", "BY", "KNOWN-FROM"}}
	for _, c := range list {
		group := c.Group
		if c.Then != c.Group {
			group += " -> " + c.Then
		}
		next := c.Next
		if c.Maybe && c.changes() {
			next += "?"
		}
		t.add(group, c.Address, dash(c.VIP), c.Now, next, c.By, c.Known)
	}
	return t
}
