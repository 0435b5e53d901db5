package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

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
			c = dash(c)
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
