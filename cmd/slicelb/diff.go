package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/config"
)

func newDiff(g *globals) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "diff",
		Short: "Show what a reload would change",
		Long: `Show how the files differ from what runs, object by object: what a reload would
add (+), take away (-) or change (~).

Exit status 0 when they are the same, 1 when they differ, 78 when a reload would
refuse the files.`,
		Example: "  slicelb diff && echo nothing to do",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			running, err := g.client().RunningConfig(cmd.Context())
			if err != nil {
				return err
			}
			if g.config == "" {
				g.config = running.Path
			}
			want, warnings, err := g.loadOrExplain(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := warnings.WriteTo(g.stderr); err != nil {
				return err
			}
			have, err := parseRunning(running)
			if err != nil {
				return err
			}
			changes := compare(have, want)
			if out.format == "json" {
				err = printJSON(g.stdout, changes)
			} else {
				err = printChanges(g, changes)
			}
			var lost *config.LostError
			switch {
			case err != nil:
			case errors.As(want.Replaces(have), &lost):
				err = &exitError{code: exitBadConfig, err: fmt.Errorf("a reload refuses this: %w", lost), hint: lost.Hint}
			case len(changes) > 0:
				err = &exitError{code: exitFailed}
			}
			return err
		},
	}
	out.flags(cmd)
	return cmd
}

func printChanges(g *globals, changes []change) error {
	p := painter{g.colour()}
	for _, c := range changes {
		text := fmt.Sprintf("%s %s", c.Kind, c.Object)
		switch c.Kind {
		case added:
			text = p.green(text)
		case removed:
			text = p.red(text)
		}
		if _, err := fmt.Fprintln(g.stdout, text); err != nil {
			return err
		}
		for _, f := range c.Fields {
			if _, err := fmt.Fprintf(g.stdout, "    %s %s\n", f.Kind, f.Text); err != nil {
				return err
			}
		}
	}
	return nil
}
