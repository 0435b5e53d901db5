package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// version is what git describe says, set by the Makefile and by internal/pack
// (-ldflags -X); "" means the module's own.
var version = ""

// versionString is the version without the v of a tag, as the packages have it.
func versionString() string {
	v := version
	if info, ok := debug.ReadBuildInfo(); ok && v == "" {
		v = info.Main.Version
	}
	if v == "" {
		return "(devel)"
	}
	return strings.TrimPrefix(v, "v")
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
