package main

import (
	"github.com/spf13/cobra"
)

func newCompletion(g *globals) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a completion script for a shell",
		Long: `Print a completion script for a shell. The packages install them; by hand:

  slicelb completion bash > /etc/bash_completion.d/slicelb
  slicelb completion zsh  > "${fpath[1]}/_slicelb"
  slicelb completion fish > ~/.config/fish/completions/slicelb.fish`,
		Example:   "  source <(slicelb completion bash)",
		Args:      exactly("bash|zsh|fish"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(g.stdout, true)
			case "zsh":
				return root.GenZshCompletion(g.stdout)
			case "fish":
				return root.GenFishCompletion(g.stdout, true)
			}
			return usageErrorf("completion for %q: want bash, zsh or fish", args[0])
		},
	}
}
