package main

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
)

func newGroup(g *globals) *cobra.Command {
	return family("group", "List and show groups",
		"List and show the groups: the slices that the configuration makes one identity.",
		newGroupList(g), newGroupShow(g))
}

func newGroupList(g *globals) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List groups",
		Long:    "List the groups in the order in which they are matched.",
		Example: "  slicelb group list -o wide",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := g.client().Listed(cmd.Context())
			if err != nil {
				return err
			}
			return out.print(g.stdout, s.Groups, groupTable(s.Groups))
		},
	}
	out.flags(cmd)
	return cmd
}

func groupTable(groups []api.Group) *table {
	t := &table{columns: []string{"GROUP", "SLICES", "ANCHORS", "MEMBERS", "TRANSLATE", "SPLIT", "PENDING", "ORIGIN"}, wide: 5}
	for _, g := range groups {
		translate := "yes"
		if !g.Translate {
			translate = "no"
		}
		t.add(prose.Foreign(g.Name), list(prose.ForeignAll(g.Slices)), strconv.Itoa(g.Anchors), strconv.Itoa(g.Members),
			translate, prose.Foreign(g.Split), list(prose.ForeignAll(g.Pending)), g.Origin)
	}
	return t
}

func newGroupShow(g *globals) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Show one group and its cgroups",
		Long:              "Show one group, or one split child of a group, with the cgroups that have it.",
		Example:           "  slicelb group show web\n  slicelb group show jobs/build-17.scope",
		Args:              exactly("NAME"),
		ValidArgsFunction: g.completeFirst(groupNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := g.client().Group(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if out.format == "json" {
				return printJSON(g.stdout, v)
			}
			return printGroup(g, &out, v)
		},
	}
	out.flags(cmd)
	return cmd
}

func printGroup(g *globals, out *output, v *api.Group) error {
	tw := tabwriter.NewWriter(g.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "group\t%s\n", prose.Foreign(v.Name))
	fmt.Fprintf(tw, "slices\t%s\n", strings.Join(prose.ForeignAll(v.Slices), " "))
	if v.Split != "" {
		fmt.Fprintf(tw, "split\t%s\n", prose.Foreign(v.Split))
	}
	fmt.Fprintf(tw, "translate\t%t\n", v.Translate)
	fmt.Fprintf(tw, "policy\t%s by default\n", v.Policy)
	if v.Strict {
		fmt.Fprintf(tw, "strict\ttrue\n")
	}
	for _, d := range v.Denied {
		fmt.Fprintf(tw, "denied\t%d to %s\n", d.Calls, networksOr(d.VIP))
	}
	if len(v.Pending) > 0 {
		fmt.Fprintf(tw, "pending\t%s\n", strings.Join(prose.ForeignAll(v.Pending), " "))
	}
	fmt.Fprintf(tw, "origin\t%s\n", v.Origin)
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(g.stdout)
	t := &table{columns: []string{"CGROUP", "KIND", "UNIT", "GROUP", "ID"}, wide: 3}
	for _, c := range v.Cgroups {
		kind := "member"
		switch {
		case c.Anchor:
			kind = "anchor"
		case c.Split:
			kind = "split"
		}
		t.add(prose.Foreign(c.Path), kind, prose.Foreign(c.Unit), prose.Foreign(c.Group), strconv.FormatUint(c.ID, 10))
	}
	return out.print(g.stdout, nil, t)
}
