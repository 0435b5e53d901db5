package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/lb"
)

func newObserve(g *globals) *cobra.Command {
	var (
		o             api.Observation
		format, since string
		bare          bool
	)
	cmd := &cobra.Command{
		Use:   "observe",
		Short: "Print decisions, one a line",
		Long: `Print what calls to VIPs came to, one a line: who called, what for, which backend
it got or why it got none. Without -f it prints what the daemon has kept since it was
started: refusals always, up to a number, and everything else while somebody watched.

With -f it goes on with what comes, which costs each decision a little while it runs.
What cannot be told in time is counted, and said where it is missing: calls never wait
for a watcher. It outlives a restart of the daemon, and says so: what is decided while
there is none may be missing.`,
		Example: "  slicelb observe -f --vip db\n  slicelb observe --verdict rejected --since 10m\n  slicelb observe -f -o json | jq 'select(.decision.group == \"web\")'",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format == "json" {
				format = "jsonl" // as the other commands have it
			}
			if format != "table" && format != "wide" && format != "jsonl" {
				return usageErrorf("-o %q: want table, wide, or json, one a line", format)
			}
			if !cmd.Flags().Changed("lines") {
				o.Last = -1
				if o.Follow {
					o.Last = 10
				}
			} else if o.Last < 0 {
				return usageErrorf("-n %d: want 0 or more", o.Last)
			}
			var err error
			if o.Since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
			p := &observed{w: g.stdout, messages: g.stderr, format: format, headers: !bare && format != "jsonl"}
			if o.Follow {
				return p.follow(cmd.Context(), g.client(), o)
			}
			return g.client().Observe(cmd.Context(), o, p.print)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on with what comes")
	f.StringVar(&o.VIP, "vip", "", "of this `VIP` alone")
	f.StringVar(&o.Group, "group", "", "of this `group` alone; \"host\" is whoever has none")
	f.StringSliceVar(&o.Verdicts, "verdict", nil, "of these `verdicts` alone: "+strings.Join(bpf.ToldNames(), ", "))
	f.StringVar(&since, "since", "", "of what was kept, what is no older: a duration like 10m, or a `time`")
	f.IntVarP(&o.Last, "lines", "n", 0, "of what was kept, so many `lines` at most (default all; 10 with -f)")
	f.StringVarP(&format, "output", "o", "table", "`format`: table, wide, or json (also jsonl), one a line")
	f.BoolVar(&bare, "no-headers", false, "leave out a table's first line")
	completions(cmd, map[string]cobra.CompletionFunc{
		"vip":     g.completeOption(vipNames),
		"group":   g.completeOption(func(s *api.Status) []string { return append(groupNames(s), lb.HostGroup) }),
		"verdict": severalOf(bpf.ToldNames()...),
		"output":  oneOf("table", "wide", "json"),
	})
	return cmd
}

// parseSince reads "10m" as so long ago, and times as people write them.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	if t, err := time.ParseInLocation("15:04:05", text, now.Location()); err == nil {
		y, m, d := now.Date()
		return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
	}
	return time.Time{}, usageErrorf("--since %q: want a duration like 10m, or a time like 2006-01-02 15:04:05", text)
}

// observed prints lines as they come: a column is as wide as is usual, since
// nobody knows what will follow.
type observed struct {
	w        io.Writer
	messages io.Writer
	format   string
	headers  bool
}

// follow prints what comes until ctx ends, which is how one ends it. When the daemon
// ends the stream, it waits for the next one as long as a restart takes.
func (p *observed) follow(ctx context.Context, c *api.Client, o api.Observation) error {
	var ended time.Time
	for {
		err := c.Observe(ctx, o, p.print)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, api.ErrStreamEnded):
			fmt.Fprintf(p.messages, "slicelb: %v: waiting for the next\n", err)
			ended = time.Now()
			o.Since, o.Last = ended, -1 // what was kept until somebody watched again
		case errors.Is(err, api.ErrNotRunning) && time.Since(ended) < waitPatience:
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(waitInterval):
		}
	}
}

func (p *observed) print(line *api.Observed) error {
	if p.format == "jsonl" {
		enc := json.NewEncoder(p.w)
		enc.SetEscapeHTML(false)
		return enc.Encode(line)
	}
	if p.headers {
		p.headers = false
		if err := p.row("TIME", "VERDICT", "GROUP", "VIP", "ADDRESS", "BACKEND", "TOOK", "UNIT", "COMMAND", "PID",
			"REASON", "RULE", "VIEW", "CALL", "CGROUP"); err != nil {
			return err
		}
	}
	if m := line.Missing; m != nil {
		_, err := fmt.Fprintf(p.messages, "slicelb: %s\n", missingText(m))
		return err
	}
	d := line.Decision
	if d == nil {
		return nil // of a newer daemon
	}
	rule := ""
	if d.Rule > 0 {
		rule = strconv.FormatUint(uint64(d.Rule), 10)
	}
	verdict := d.Verdict
	if p.format == "table" && d.Reason != "chosen" {
		verdict += " (" + d.Reason + ")"
	}
	return p.row(moment(d.Time.Local(), time.Now()), verdict, prose.Foreign(d.Group), d.VIP,
		d.Target(), d.Backend, took(d.Took), prose.Foreign(d.Unit), prose.Foreign(d.Command), strconv.FormatUint(uint64(d.PID), 10),
		d.Reason, rule, d.View, d.Call, prose.Foreign(d.Cgroup))
}

// moment leaves the date out of what is today's.
func moment(at, now time.Time) string {
	if at.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return at.Format("15:04:05.000000")
	}
	return at.Format("2006-01-02 15:04:05.000000")
}

// widths of the columns; what is wider moves what follows.
var widths = []int{15, 18, 10, 10, 21, 21, 8, 22, 15, 7, 14, 4, 8, 7, 0}

const narrowColumns = 10

func (p *observed) row(cells ...string) error {
	if p.format == "table" {
		cells = cells[:narrowColumns]
	}
	var b strings.Builder
	for i, c := range cells {
		c = dash(c)
		if i == len(cells)-1 {
			b.WriteString(c)
		} else {
			fmt.Fprintf(&b, "%-*s  ", widths[i], c)
		}
	}
	b.WriteByte('\n')
	_, err := io.WriteString(p.w, b.String())
	return err
}

func missingText(m *api.Missing) string {
	switch m.Where {
	case "kernel":
		return fmt.Sprintf("%s could not be told in time", prose.Plural(int(m.Count), "decision"))
	case "budget":
		return fmt.Sprintf("%s of group %s are not told one by one", prose.Plural(int(m.Count), "more refusal"), prose.Foreign(m.Group))
	}
	return fmt.Sprintf("%s left out: this side is too slow", prose.Plural(int(m.Count), "line"))
}
