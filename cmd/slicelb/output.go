package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// output is how a listing is printed.
type output struct {
	format    string
	noHeaders bool
}

// flags adds -o and --no-headers to cmd.
func (o *output) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.format, "output", "o", "table", "`format`: table, wide or json")
	cmd.Flags().BoolVar(&o.noHeaders, "no-headers", false, "leave out a table's first line")
	completions(cmd, map[string]cobra.CompletionFunc{"output": oneOf("table", "wide", "json")})
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch o.format {
		case "table", "wide", "json":
			return run(cmd, args)
		}
		return usageErrorf("-o %q: want table, wide or json", o.format)
	}
}

// table is rows under names. Columns from wide on appear with -o wide only;
// 0 means that all of them always appear.
type table struct {
	columns []string
	wide    int
	rows    [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// print writes v as JSON, or t.
func (o *output) print(w io.Writer, v any, t *table) error {
	if o.format == "json" {
		return printJSON(w, v)
	}
	n := len(t.columns)
	if t.wide > 0 && o.format != "wide" {
		n = t.wide
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(cells []string) {
		for i, c := range cells[:n] {
			if c == "" {
				c = "-"
			}
			if i == n-1 {
				fmt.Fprintln(tw, c) // no padding at the end of a line
			} else {
				fmt.Fprint(tw, c, "\t")
			}
		}
	}
	if !o.noHeaders {
		line(t.columns)
	}
	for _, r := range t.rows {
		line(r)
	}
	return tw.Flush()
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func list(items []string) string { return strings.Join(items, ",") }

// since is the time that passed, as coarse as people say it.
func since(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return "never"
	case d < 0:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// ago is when something was, for people.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return since(t, now) + " ago"
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }
