package main

import (
	"errors"

	"github.com/spf13/cobra"
)

type openDataPath func()

func openKernel() {}

func newServe(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:     "serve",
		Short:   "Run the daemon",
		Long:    "Run the daemon.",
		Example: "  slicelb serve",
		Args:    exactly(),
		RunE:    func(*cobra.Command, []string) error { return errors.New("not built yet") },
	}
}
