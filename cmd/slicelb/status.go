package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
)

func newStatus(g *globals) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the daemon on one screen",
		Long: `Show the daemon on one screen: which configuration runs, what is attached and
who keeps it, how cgroups are followed, VIPs, groups, and what is wrong.

Exit status 0 when all is well, 1 when the daemon serves but reports a problem,
3 when it does not run, and what systemd says of its unit is said then, or when it
says nothing for 5 seconds.`,
		Example: "  slicelb status\n  slicelb status -o json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := g.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if out.format == "json" {
				err = printJSON(g.stdout, s)
			} else {
				err = printStatus(g, s, out.format == "wide", time.Now())
			}
			if err == nil && s.State != api.OK {
				err = &exitError{code: exitFailed}
			}
			return err
		},
	}
	out.flags(cmd)
	return cmd
}

func printStatus(g *globals, s *api.Status, wide bool, now time.Time) error {
	p := painter{g.colour()}
	state := p.green(string(s.State))
	if s.State != api.OK {
		state = p.red(string(s.State))
	}
	fmt.Fprintf(g.stdout, "slicelb %s  %s  pid %d, up %s\n", s.Version, state, s.PID, since(s.Started, now))
	tw := tabwriter.NewWriter(g.stdout, 0, 8, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	serving(line, s, wide, now)
	tracking(line, &s.Tracking, wide, now)
	if err := tw.Flush(); err != nil {
		return err
	}
	if len(s.VIPs) > 0 {
		fmt.Fprintln(g.stdout)
		if err := (&output{}).print(g.stdout, nil, vipTable(s.VIPs)); err != nil {
			return err
		}
	}
	if len(s.Groups) > 0 {
		fmt.Fprintln(g.stdout)
		if err := (&output{}).print(g.stdout, nil, groupTable(s.Groups)); err != nil {
			return err
		}
	}
	if len(s.Problems)+len(s.Notes) > 0 {
		fmt.Fprintln(g.stdout)
	}
	for _, text := range s.Problems {
		fmt.Fprintln(g.stdout, p.red("problem:"), indent(text))
	}
	for _, text := range s.Notes {
		fmt.Fprintln(g.stdout, "note:", indent(text))
	}
	return nil
}

// serving says which configuration runs, and what of it is in the kernel.
func serving(line func(name, format string, args ...any), s *api.Status, wide bool, now time.Time) {
	files := prose.Plural(len(s.Config.Files), "file")
	if s.Config.LastGood {
		line("config", "%s: the last good one, loaded %s ago; the files are not in use", s.Config.Path, since(s.Config.Loaded, now))
	} else {
		line("config", "%s (%s), loaded %s ago", s.Config.Path, files, since(s.Config.Loaded, now))
	}
	if s.HTTP != "" {
		line("page", "http://%s/, metrics at /metrics", s.HTTP)
	}
	d := s.DataPlane
	switch {
	case d.Before:
		line("data plane", "what the process before left serves on; nothing newer is attached yet")
	case !d.Attached && len(s.VIPs) == 0 && summaryText(s.Policy) == "":
		line("data plane", "nothing attached: no VIP is configured")
	case !d.Attached:
		line("data plane", "nothing attached yet")
	case d.Held.Store:
		line("data plane", "%s at %s, kept by systemd over restarts", prose.Plural(len(d.Hooks), "hook"), prose.Foreign(d.CgroupRoot))
	default:
		line("data plane", "%s at %s, held by this process only: %s", prose.Plural(len(d.Hooks), "hook"), prose.Foreign(d.CgroupRoot), d.Held.Reason)
	}
	if text := summaryText(s.Policy); text != "" {
		line("policy", "%s", text)
	}
	if wide {
		line("hooks", "%s", strings.Join(d.Hooks, " "))
		line("slots", "%d of %d", d.Slots.Used, d.Slots.Capacity)
		line("writes", "%d", d.Writes)
	}
}

// tracking says how cgroups are followed.
func tracking(line func(name, format string, args ...any), t *api.Tracking, wide bool, now time.Time) {
	mode := "systemd and cgroupfs"
	if t.Mode != "bus" {
		mode = "cgroupfs only"
	}
	if t.Cause != "" {
		mode += " (" + prose.Foreign(t.Cause) + ")"
	}
	line("cgroups", "%s and %s followed, by %s", prose.Plural(t.Anchors, "anchor"), prose.Plural(t.Members, "member"), mode)
	if r := t.Resync; !r.At.IsZero() {
		line("resync", "%s ago (%s), %s, %s", since(r.At, now), r.Cause, prose.Plural(r.Difference, "difference"), r.Took.Round(10*time.Microsecond))
	}
	if wide {
		line("hints", "%s", sources(t.Sources))
		if m := t.Mapped; m.Count > 0 {
			line("mapped", "%s after the kernel's event at last, %s at most, %.1f%% of %d within 10ms",
				m.Last.Round(10*time.Microsecond), m.Most.Round(10*time.Microsecond), 100*m.Within(10*time.Millisecond), m.Count)
		}
	}
	if len(t.Pending) > 0 {
		line("pending", "%s", prose.Some(t.Pending))
	}
}

// sources lists the counts that are not zero.
func sources(counts map[string]uint64) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[name]; n > 0 {
			out = append(out, fmt.Sprintf("%s %d", strings.ReplaceAll(name, "_", " "), n))
		}
	}
	return strings.Join(out, ", ")
}

// indent keeps the lines of one text together.
func indent(s string) string { return strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n  ") }
