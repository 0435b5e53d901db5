package main

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
)

const lastLong = `The last one of a VIP that works waits for another that is about to come, 5 seconds
or --timeout. Where another should work and does not, that is an error, but for
--force, and for a unit that stops.`

func newBackend(g *globals) *cobra.Command {
	return family("backend", "List backends, and take them out",
		"List the backends of all VIPs, and take single ones out and back in.",
		newBackendList(g),
		newBackendSet(g, api.OrderDrain, "Give a backend no new connections",
			`Give a backend of a VIP no new connections and no new UDP flows. Those it has
stay, and so does its health check. It returns when the kernel has it.
`+lastLong+`
Restarts and reloads leave it so; "backend ready" takes it back.`),
		newBackendSet(g, api.OrderMaint, "Take a backend out",
			`Take a backend of a VIP out, as if it were down: no new connections, and UDP
flows choose another one. It is not checked either. Connections that are there
are left alone.
`+lastLong+`
Restarts and reloads leave it so; "backend ready" takes it back.`),
		newBackendSet(g, api.OrderReady, "Take a backend back in",
			`Take a backend back in that was drained or in maintenance. Where it has health
checks it is checked anew, and comes back when that succeeds. It returns when the
first check has ended, 10 seconds later at the most, and says what keeps the backend
out.`))
}

func stateText(state string) string {
	switch state {
	case api.OrderDrain:
		return "drained"
	case api.OrderMaint:
		return "in maintenance"
	}
	return "ready"
}

func newBackendList(g *globals) *cobra.Command {
	var out output
	var vip string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List backends",
		Long:    "List the backends of all VIPs, or of one, with what they got. A backend that a\ngroup gets instead of the VIP's own stands with that group. SINCE is since when a\nbackend stands as it does; a dash is where nobody knows.",
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
				s, err := g.client().Listed(cmd.Context())
				if err != nil {
					return err
				}
				vips = s.VIPs
			}
			backends := []api.Backend{}
			for _, v := range vips {
				backends = append(backends, v.All()...)
			}
			return out.print(g.stdout, backends, backendTable(backends))
		},
	}
	out.flags(cmd)
	cmd.Flags().StringVar(&vip, "vip", "", "only those of the VIP `NAME`")
	return cmd
}

func backendTable(backends []api.Backend) *table {
	t := &table{
		columns: []string{"VIP", "FOR", "BACKEND", "WEIGHT", "STATE", "SHARE", "LIVE", "CALLS", "SINCE", "REASON", "CHECK", "CHECKED", "FLOWS", "UNIT", "ORIGIN"},
		wide:    10,
	}
	now := time.Now()
	for _, b := range backends {
		group := b.Group
		if group == "" {
			group = "any"
		}
		var check, checked string
		if c := b.Check; c != nil {
			check, checked = c.Type+" "+c.State, ago(c.Last, now)
			if c.Count > 0 {
				checked += " in " + c.Took.Round(10*time.Microsecond).String()
			}
		}
		t.add(b.VIP, group, b.Address, strconv.FormatUint(uint64(b.Weight), 10), b.State, percent(b.Share),
			count(b.Live), count(b.Counters.Connects+b.Counters.Flows), ago(b.Since, now), prose.OneLine(b.Reason), check, checked,
			count(b.Counters.Flows), unitOfBackend(b, now), b.Origin)
	}
	return t
}
