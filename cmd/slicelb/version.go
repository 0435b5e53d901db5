package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the Makefile (-ldflags -X); "" means the module's own.
var version = ""

func versionString() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func newVersion(g *globals) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Long:    "Print the version of this program. The daemon's own, which may differ during an\nupgrade, stands in slicelb status.",
		Example: "  slicelb version -o json",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			if out.format == "json" {
				return printJSON(g.stdout, map[string]string{"version": versionString(), "go": runtime.Version()})
			}
			_, err := fmt.Fprintf(g.stdout, "slicelb %s (%s)\n", versionString(), runtime.Version())
			return err
		},
	}
	out.flags(cmd)
	return cmd
}
