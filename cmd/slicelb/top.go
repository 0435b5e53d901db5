package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/lb"
)

func newTop(g *globals) *cobra.Command {
	var o topOptions
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
			if err := o.check(); err != nil {
				return err
			}
			if !o.batch && !o.once && o.out.format != "json" && !g.terminal {
				return &exitError{code: exitUsage, err: fmt.Errorf("standard output is no terminal"), hint: "use -b"}
			}
			if err := o.screen.known(cmd.Context(), g); err != nil {
				return err
			}
			if o.batch || o.once || o.out.format == "json" {
				return batchTop(cmd.Context(), g, &o)
			}
			fetch := func() (*api.Top, error) { return g.client().Top(cmd.Context()) }
			if _, err := fetch(); err != nil {
				return err
			}
			return liveTop(cmd.Context(), g, newTopModel(fetch, time.Duration(o.delay), o.screen, o.by, painter{g.colour()}))
		},
	}
	o.out.flags(cmd)
	f := cmd.Flags()
	f.BoolVarP(&o.batch, "batch", "b", false, "print tables instead of a live view")
	f.IntVarP(&o.iterations, "iterations", "n", 0, "with -b, so `many` tables (default no end)")
	f.BoolVarP(&o.once, "once", "1", false, "one table: -b -n 1")
	o.delay = seconds(time.Second)
	f.VarP(&o.delay, "delay", "d", "`time` between two looks: seconds, or a duration like 500ms")
	f.StringVar((*string)(&o.screen.kind), "show", string(topVIPs), "`what`: vips, groups or backends")
	f.StringVar(&o.screen.vip, "vip", "", "what belongs to this `VIP`")
	f.StringVar(&o.screen.group, "group", "", "what belongs to this `group`")
	f.StringVar(&o.by, "sort", "CONN/S", "`column` to sort by")
	completions(cmd, map[string]cobra.CompletionFunc{
		"vip":   g.completeOption(vipNames),
		"group": g.completeOption(groupNames),
		"show":  oneOf("vips", "groups", "backends"),
	})
	return cmd
}

// topOptions are what top is told.
type topOptions struct {
	batch, once bool
	iterations  int // 0 = no end
	delay       seconds
	screen      topScreen
	by          string // a column
	out         output
}

// check refuses what makes no sense, and says the rest as it is meant.
func (o *topOptions) check() error {
	if !slices.Contains([]topKind{topVIPs, topGroups, topBackends}, o.screen.kind) {
		return usageErrorf("--show %q: want vips, groups or backends", o.screen.kind)
	}
	columns := topColumns(o.screen.kind)
	o.by = strings.ToUpper(o.by)
	if !slices.ContainsFunc(columns, func(c topColumn) bool { return c.name == o.by }) {
		return usageErrorf("--sort %q: want one of %s", o.by, list(names(columns, func(c topColumn) string { return c.name })))
	}
	if o.screen.kind == topBackends && o.screen.group != "" {
		return usageErrorf("--group with --show backends: what a backend gets is not counted by group; choose by --vip")
	}
	if o.delay < seconds(10*time.Millisecond) {
		return usageErrorf("-d %v: want 10ms or more", &o.delay)
	}
	if o.iterations < 0 || o.once && o.iterations > 1 {
		return usageErrorf("-n %d: want 0 or more, and no more than one with -1", o.iterations)
	}
	if o.once {
		o.iterations = 1
	}
	return nil
}

// known refuses a VIP and a group that are not configured: they would be an empty table.
func (s *topScreen) known(ctx context.Context, g *globals) error {
	if s.vip != "" {
		if _, err := g.client().VIP(ctx, s.vip); err != nil {
			return err
		}
	}
	if group, _, _ := strings.Cut(s.group, "/"); group != "" && group != lb.HostGroup {
		if _, err := g.client().Group(ctx, group); err != nil {
			return err
		}
	}
	return nil
}

// seconds is a duration that may be written as a number of them, as systemd-cgtop
// has it.
type seconds time.Duration

func (s *seconds) Set(text string) error {
	if n, err := strconv.ParseFloat(text, 64); err == nil && n >= 0 && n < 1e9 {
		*s = seconds(n * float64(time.Second))
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return errors.New("want seconds, or a duration like 500ms")
	}
	*s = seconds(d)
	return nil
}

func (s *seconds) String() string { return time.Duration(*s).String() }
func (s *seconds) Type() string   { return "time" }

// batchTop prints a table after each delay.
func batchTop(ctx context.Context, g *globals, o *topOptions) error {
	before, err := g.client().Top(ctx)
	if err != nil {
		return err
	}
	tick := time.NewTicker(time.Duration(o.delay))
	defer tick.Stop()
	for i := 0; o.iterations == 0 || i < o.iterations; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		after, err := g.client().Top(ctx)
		if err != nil {
			return err
		}
		rows, columns := topRows(before, after, o.screen), topColumns(o.screen.kind)
		sortTop(rows, columns, o.by, false)
		before = after
		if o.out.format == "json" {
			if err := printLook(g.stdout, after.At, rows); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(g.stdout)
		}
		lines := topLines(rows, columns, 0)
		if o.out.noHeaders {
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
