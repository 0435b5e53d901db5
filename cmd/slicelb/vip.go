package main

import (
	"fmt"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
)

func newVIP(g *globals) *cobra.Command {
	return family("vip", "List and show VIPs",
		"List and show the VIPs that the daemon serves, with what calls to them got.",
		newVIPList(g), newVIPShow(g))
}

func newVIPList(g *globals) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List VIPs",
		Long:    "List the VIPs that the daemon serves, by name.",
		Example: "  slicelb vip list\n  slicelb vip list -o json | jq '.[] | select(.up == 0).name'",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := g.client().Listed(cmd.Context())
			if err != nil {
				return err
			}
			return out.print(g.stdout, s.VIPs, vipTable(s.VIPs))
		},
	}
	out.flags(cmd)
	return cmd
}

func vipTable(vips []api.VIP) *table {
	t := &table{
		columns: []string{"VIP", "FRONTENDS", "UP", "CALLS", "REJECTED", "CLIENTS", "EXCEPT", "WHEN-DOWN", "FLOWS", "PASSED", "DENIED", "ORIGIN"},
		wide:    6,
	}
	for _, v := range vips {
		t.add(v.Name, list(v.Frontends), fmt.Sprintf("%d/%d", v.Up, len(v.Backends)),
			count(v.Counters.Connects+v.Counters.Flows), count(v.Counters.Rejected), clients(v),
			list(v.Except), v.WhenDown, count(v.Counters.Flows), count(v.Counters.Passed), count(v.Counters.Denied), v.Origin)
	}
	return t
}

func clients(v api.VIP) string {
	if v.Clients == nil {
		return "any"
	}
	return list(v.Clients)
}

func newVIPShow(g *globals) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Show one VIP",
		Long:              "Show one VIP: its frontends, who gets it, its backends, and what each group gets instead.",
		Example:           "  slicelb vip show db",
		Args:              exactly("NAME"),
		ValidArgsFunction: g.completeFirst(vipNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := g.client().VIP(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if out.format == "json" {
				return printJSON(g.stdout, v)
			}
			return printVIP(g, &out, v)
		},
	}
	out.flags(cmd)
	return cmd
}

func printVIP(g *globals, out *output, v *api.VIP) error {
	tw := tabwriter.NewWriter(g.stdout, 0, 8, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(tw, "%s\t%s\n", name, value)
		}
	}
	line("vip", v.Name)
	for _, f := range v.Frontends {
		line("frontend", f)
	}
	line("algorithm", v.Algorithm)
	line("affinity", v.Affinity)
	line("clients", clients(*v))
	line("except", list(v.Except))
	line("hidden", v.Hidden)
	line("when_down", v.WhenDown)
	line("reject_unknown_ports", strconv.FormatBool(v.RejectUnknownPorts))
	line("drain_timeout", v.DrainTimeout)
	line("terminate", v.Terminate)
	line("health", v.Health)
	for _, u := range v.Units {
		line("unit", unitText(u))
	}
	line("calls", fmt.Sprintf("%d connects, %d flows, %d passed, %d rejected, %d denied",
		v.Counters.Connects, v.Counters.Flows, v.Counters.Passed, v.Counters.Rejected, v.Counters.Denied))
	line("live", prose.Plural(int(v.Live), "open socket"))
	line("origin", v.Origin)
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(g.stdout)
	return out.print(g.stdout, nil, backendTable(v.All()))
}
