package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newDump(g *globals) *cobra.Command {
	return family("dump", "Print what the kernel holds, or the merged configuration",
		"Print what the kernel's maps hold, or the configuration that runs as one file.",
		newDumpMaps(g), newDumpConfig(g))
}

func newDumpMaps(g *globals) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "maps",
		Short:   "Print what the kernel's maps hold",
		Long:    "Print every entry of the kernel's maps, one a line, sorted. It is read from the\nkernel for this, not from what the daemon believes.",
		Example: "  slicelb dump maps | grep frontend",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := g.client().Dump(cmd.Context())
			if err != nil {
				return err
			}
			if out.format == "json" {
				return printJSON(g.stdout, d)
			}
			for _, l := range d.Lines {
				if _, err := fmt.Fprintln(g.stdout, l); err != nil {
					return err
				}
			}
			return nil
		},
	}
	out.flags(cmd)
	return cmd
}

func newDumpConfig(g *globals) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Print the configuration that runs, as one file",
		Long:    "Print the configuration that runs, merged into one file, with where each object\ncame from. It can be read by slicelb check.",
		Example: "  slicelb dump config > merged.toml && slicelb check -c merged.toml",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.client().RunningConfig(cmd.Context())
			if err != nil {
				return err
			}
			if out.format == "json" {
				return printJSON(g.stdout, c)
			}
			_, err = fmt.Fprint(g.stdout, c.TOML)
			return err
		},
	}
	out.flags(cmd)
	return cmd
}
