package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
)

func newTop(g *globals) *cobra.Command {
	var (
		batch, once bool
		iterations  int
		delay       time.Duration
		show        string
		s           topScreen
		by          string
		out         output
	)
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show VIPs, groups and backends by what they do now",
		Long: `Show VIPs, groups and backends by what they do now: connects a second (and new flows
of UDP), live connections, calls that were rejected, denied or left untouched, and how long TCP
connects took, which is measured for as long as somebody asks.

Keys: v, g and b choose VIPs, groups or backends; enter goes to what belongs to a line,
esc back; s sorts by the next column, r the other way round; / filters; p pauses; q ends.

With -b the tables are printed one after the other, each after one delay; with -o json
each is one line.`,
		Example: "  slicelb top\n  slicelb top -b -1 --show groups\n  slicelb top -b -n 10 -d 5s --vip db --show backends",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.kind = topKind(show)
			if !slices.Contains([]topKind{topVIPs, topGroups, topBackends}, s.kind) {
				return usageErrorf("--show %q: want vips, groups or backends", show)
			}
			columns := topColumns(s.kind)
			by = strings.ToUpper(by)
			if !slices.ContainsFunc(columns, func(c topColumn) bool { return c.name == by }) {
				return usageErrorf("--sort %q: want one of %s", by, list(names(columns, func(c topColumn) string { return c.name })))
			}
			if delay < 10*time.Millisecond {
				return usageErrorf("-d %v: want 10ms or more", delay)
			}
			if once {
				iterations = 1
			}
			if iterations < 0 {
				return usageErrorf("-n %d: want 0 or more", iterations)
			}
			if batch || once || out.format == "json" {
				return batchTop(cmd.Context(), g, &out, s, by, delay, iterations)
			}
			if !g.terminal {
				return &exitError{code: exitUsage, err: fmt.Errorf("standard output is no terminal"), hint: "use -b"}
			}
			fetch := func() (*api.Top, error) { return g.client().Top(cmd.Context()) }
			if _, err := fetch(); err != nil {
				return err
			}
			return liveTop(cmd.Context(), g, newTopModel(fetch, delay, s, by, painter{g.colour()}))
		},
	}
	out.flags(cmd)
	f := cmd.Flags()
	f.BoolVarP(&batch, "batch", "b", false, "print tables instead of a live view")
	f.IntVarP(&iterations, "iterations", "n", 0, "with -b, so `many` tables (default no end)")
	f.BoolVarP(&once, "once", "1", false, "one table: -b -n 1")
	f.DurationVarP(&delay, "delay", "d", time.Second, "`time` between two looks")
	f.StringVar(&show, "show", string(topVIPs), "`what`: vips, groups or backends")
	f.StringVar(&s.vip, "vip", "", "what belongs to this `VIP`")
	f.StringVar(&s.group, "group", "", "what belongs to this `group`")
	f.StringVar(&by, "sort", "CONN/S", "`column` to sort by")
	completions(cmd, map[string]cobra.CompletionFunc{
		"vip":   g.completeOption(vipNames),
		"group": g.completeOption(groupNames),
		"show":  oneOf("vips", "groups", "backends"),
	})
	return cmd
}

// batchTop prints a table after each delay; 0 iterations is no end.
func batchTop(ctx context.Context, g *globals, out *output, s topScreen, by string, delay time.Duration, iterations int) error {
	before, err := g.client().Top(ctx)
	if err != nil {
		return err
	}
	tick := time.NewTicker(delay)
	defer tick.Stop()
	for i := 0; iterations == 0 || i < iterations; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		after, err := g.client().Top(ctx)
		if err != nil {
			return err
		}
		rows, columns := topRows(before, after, s), topColumns(s.kind)
		sortTop(rows, columns, by, false)
		before = after
		if out.format == "json" {
			if err := printLook(g.stdout, after.At, rows); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(g.stdout)
		}
		lines := topLines(rows, columns, 0)
		if out.noHeaders {
			lines = lines[1:]
		}
		for _, line := range lines {
			if _, err := fmt.Fprintln(g.stdout, line); err != nil {
				return err
			}
		}
	}
	return nil
}
