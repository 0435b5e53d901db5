package main

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
)

func newExplain(g *globals) *cobra.Command {
	var (
		out          output
		pid          int
		unit, cgroup string
	)
	cmd := &cobra.Command{
		Use:   "explain [ADDRESS:PORT[/udp]]",
		Short: "Say what a caller's connect to an address gets, and why",
		Long: `Say what a connect from one caller to one address gets, and why: the caller's
cgroup with all above it and which of them decides, the group, which VIP the
address is, and which backends it may reach: where the algorithm is "maglev", the
one that it does. Without an address: what the caller gets of each VIP. The caller
is a process, a unit or a cgroup.

The answer is worked out from what the kernel's maps hold, look-up by look-up, as
the kernel would. A backend that the caller keeps by affinity is not looked up. Of
a unit or a cgroup it is assumed that it is in the daemon's network namespace. A
process of another user is found only where /proc shows it.`,
		Example: "  slicelb explain 10.96.0.10:5432 --pid 4711\n  slicelb explain --pid 4711\n  slicelb explain '[fd00:96::10]:53/udp' --unit web@1.service\n  slicelb explain 10.96.0.10:5432 --cgroup /web.slice",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return exactly("ADDRESS:PORT")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("pid") && pid <= 0 {
				return usageErrorf("--pid %d: want a process id", pid)
			}
			path, root, err := g.caller(cmd.Context(), pid, unit, cgroup)
			if err != nil {
				return err
			}
			q := api.Question{Cgroup: path, Process: pid != 0, Elsewhere: pid != 0 && elsewhere(pid)}
			if len(args) == 1 {
				q.Address = args[0]
			}
			x, err := g.client().Explain(cmd.Context(), q)
			if err == nil && len(x.Ancestors) > 0 && x.Ancestors[0].Hidden {
				if q.IDs = idsOf(root, x.Ancestors); q.IDs != nil {
					x, err = g.client().Explain(cmd.Context(), q)
				}
			}
			if err != nil {
				return err
			}
			if out.format == "json" {
				return printJSON(g.stdout, x)
			}
			if err := printExplanation(g, &out, x); err != nil {
				return err
			}
			if q.Elsewhere && onLoopback(x) {
				_, err = fmt.Fprintf(g.stdout, "\nProcess %d is in another network namespace: where a backend on loopback is chosen, it gets EHOSTUNREACH.\n", pid)
			}
			return err
		},
	}
	out.flags(cmd)
	cmd.Flags().IntVar(&pid, "pid", 0, "the caller is the process `N`")
	cmd.Flags().StringVar(&unit, "unit", "", "the caller is in the unit `U`")
	cmd.Flags().StringVar(&cgroup, "cgroup", "", "the caller is in the cgroup `PATH`, below the cgroup root")
	return cmd
}

// elsewhere reports that a process is in another network namespace than this one, as
// far as /proc shows it.
func elsewhere(pid int) bool {
	own, err := os.Readlink("/proc/self/ns/net")
	theirs, hidden := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	return err == nil && hidden == nil && own != theirs
}

// onLoopback reports that the daemon's loopback is where one of the backends is that a
// call may go to.
func onLoopback(x *api.Explanation) bool {
	return slices.ContainsFunc(x.Backends, func(b api.Backend) bool {
		addr, err := netip.ParseAddrPort(b.Address)
		return err == nil && addr.Addr().IsLoopback() && (x.Chosen == "" || x.Chosen == b.Address)
	})
}

func printExplanation(g *globals, out *output, x *api.Explanation) error {
	tw := tabwriter.NewWriter(g.stdout, 0, 8, 2, ' ', 0)
	if !out.noHeaders {
		fmt.Fprintln(tw, "CGROUP\tID\tKIND\tGROUP\tUNIT\t")
	}
	for _, a := range x.Ancestors {
		id, mark := strconv.FormatUint(a.ID, 10), ""
		switch {
		case a.Hidden:
			id = "hidden"
		case a.ID == 0:
			id = "gone"
		}
		if a.Decides {
			mark = "<- decides"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", prose.Foreign(a.Path), id, dash(a.Kind), dash(prose.Foreign(a.Group)), dash(prose.Foreign(a.Unit)), mark)
	}
	fmt.Fprintln(tw)
	if err := tw.Flush(); err != nil {
		return err
	}
	for i, s := range x.Steps {
		fmt.Fprintf(tw, "%d.\t%s\t%s\n", i+1, s.Look, s.Found)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(g.stdout)
	if x.Address == "" {
		t := &table{columns: []string{"VIP", "ADDRESS", "ACTION", "REASON"}}
		for _, v := range x.VIPs {
			t.add(v.VIP, v.Address, v.Action, v.Reason)
		}
		return out.print(g.stdout, nil, t)
	}
	fmt.Fprintf(g.stdout, "%s: %s\n", x.Action, x.Reason)
	if len(x.Backends) == 0 {
		return nil
	}
	fmt.Fprintln(g.stdout)
	return out.print(g.stdout, nil, backendTable(x.Backends))
}
