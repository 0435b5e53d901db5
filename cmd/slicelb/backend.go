package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
)

func newBackend(g *globals) *cobra.Command {
	return family("backend", "List backends",
		"List the backends of all VIPs.",
		newBackendList(g))
}

func newBackendList(g *globals) *cobra.Command {
	var out output
	var vip string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List backends",
		Long:    "List the backends of all VIPs, or of one, with what they got. A backend that a\ngroup gets instead of the VIP's own stands with that group.",
		Example: "  slicelb backend list\n  slicelb backend list --vip db -o json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var vips []api.VIP
			if vip != "" {
				v, err := g.client().VIP(cmd.Context(), vip)
				if err != nil {
					return err
				}
				vips = append(vips, *v)
			} else {
				s, err := g.client().Status(cmd.Context())
				if err != nil {
					return err
				}
				vips = s.VIPs
			}
			backends := []api.Backend{}
			for _, v := range vips {
				backends = append(backends, v.Backends...)
				for _, view := range v.For {
					backends = append(backends, view.Backends...)
				}
			}
			return out.print(g.stdout, backends, backendTable(backends))
		},
	}
	out.flags(cmd)
	cmd.Flags().StringVar(&vip, "vip", "", "only those of the VIP `NAME`")
	return cmd
}

func backendTable(backends []api.Backend) *table {
	t := &table{columns: []string{"VIP", "FOR", "BACKEND", "WEIGHT", "STATE", "CONNECTS", "FLOWS", "ORIGIN"}, wide: 6}
	for _, b := range backends {
		group := b.Group
		if group == "" {
			group = "any"
		}
		t.add(b.VIP, group, b.Address, strconv.FormatUint(uint64(b.Weight), 10), b.State,
			count(b.Counters.Connects+b.Counters.Flows), count(b.Counters.Flows), b.Origin)
	}
	return t
}
