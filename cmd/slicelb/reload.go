package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/internal/prose"
)

func newReload(g *globals) *cobra.Command {
	var timeout time.Duration
	var out output
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have the daemon read its configuration again",
		Long: `Have the daemon read its configuration again, and return when the kernel has it.
A configuration with errors changes nothing: the errors are printed, what ran
before runs on, and the exit status is 78. For root and the daemon's own user.`,
		Example: "  slicelb check && slicelb reload\n  slicelb reload -o json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if g.config != "" {
				return &exitError{
					code: exitUsage, err: errors.New("reload: --config: the daemon reads the files that it was started with"),
					hint: "slicelb diff -c FILE compares another with what runs",
				}
			}
			if timeout <= 0 {
				return usageErrorf("--timeout %v: want more than 0", timeout)
			}
			r, err := g.client().Reload(cmd.Context(), timeout)
			if err != nil {
				return err
			}
			if out.format == "json" {
				return printJSON(g.stdout, r)
			}
			for _, w := range r.Warnings {
				fmt.Fprintln(g.stderr, w)
			}
			fmt.Fprintf(g.stderr, "slicelb: reloaded in %v: %s, %s, %s\n", r.Took.Round(100*time.Microsecond),
				prose.Plural(r.VIPs, "VIP"), prose.Plural(r.Groups, "group"), prose.Plural(r.Writes, "write"))
			return nil
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how `long` to wait for the kernel to have it")
	out.flags(cmd)
	return cmd
}
