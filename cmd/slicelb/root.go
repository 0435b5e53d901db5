package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
)

// globals are the flags that every command takes.
type globals struct {
	*env
	socket     string
	config     string // "" = the installed tree
	cgroupRoot string // "" = from the mount table
}

func (g *globals) client() *api.Client { return api.NewClient(g.socket) }

func newRoot(e *env) *cobra.Command {
	g := &globals{env: e}
	root := &cobra.Command{
		Use:   "slicelb",
		Short: "Service VIPs for hosts without Kubernetes",
		Long: `slicelb gives a host service VIPs: a process calls connect(VIP), and the kernel
puts a backend's address in its place before a packet exists. Which backend, or
whether at all, depends on who is calling: the systemd slices that the
configuration names are groups.

The daemon (slicelb serve) is run by systemd. The other commands ask it over a
Unix socket, except check, doctor, version and completion, which need none.

Exit status: 0 ok, 1 failed (status: degraded; diff: differs), 2 usage,
3 daemon not running or silent, 4 no such object, 77 not permitted, 78 bad configuration.`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return needCommand(cmd) },
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if g.socket != api.DefaultSocket {
				e.unitState = nil // the unit's daemon is not the one that is asked
			}
			return notEmpty(cmd, args)
		},
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	socket := api.DefaultSocket
	if v := e.getenv("SLICELB_SOCKET"); v != "" {
		socket = v
	}
	flags := root.PersistentFlags()
	flags.StringVar(&g.socket, "socket", socket, "the daemon's `socket`; also SLICELB_SOCKET")
	flags.StringVarP(&g.config, "config", "c", "", "configuration `file or folder` (default /etc/slicelb with its drop-ins)")
	flags.StringVar(&g.cgroupRoot, "cgroup-root", "", "`folder` to take for the cgroup2 root (default: where cgroup2 is mounted)")
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{code: exitUsage, err: err, hint: "see " + cmd.CommandPath() + " --help"}
	})
	root.AddCommand(
		newServe(g), newCheck(g), newDiff(g), newReload(g), newStatus(g),
		newVIP(g), newGroup(g), newPolicy(g), newBackend(g), newExplain(g), newObserve(g), newTop(g), newDump(g),
		newDoctor(g), newVersion(g), newCompletion(g), newMan(g),
	)
	root.SetHelpCommand(newHelp())
	return root
}

// notEmpty refuses options that name nothing: a variable of a script that is not set
// must not mean what leaving out the option does.
func notEmpty(cmd *cobra.Command, _ []string) error {
	for _, name := range []string{"socket", "config", "cgroup-root"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed && f.Value.String() == "" {
			return usageErrorf("--%s: it is empty; leave it out for the default", name)
		}
	}
	return nil
}

// newHelp is help COMMAND, which is COMMAND --help.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:    "help [COMMAND...]",
		Short:  "Say what a command does",
		Hidden: true, // it has no page of its own; cobra lists it all the same
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			of, _, err := cmd.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return names(visible(of), (*cobra.Command).Name), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			switch {
			case err != nil:
				return noSuchCommand(cmd.Root(), args)
			case len(rest) > 0:
				return noSuchCommand(of, rest)
			}
			return of.Help()
		},
	}
}

// family makes a command that only holds others.
func family(use, short, long string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return needCommand(cmd) },
	}
	cmd.AddCommand(subs...)
	return cmd
}

func needCommand(cmd *cobra.Command) error {
	cmd.SetOut(cmd.ErrOrStderr()) // it is a message here, not what was asked for
	if err := cmd.Usage(); err != nil {
		return err
	}
	return &exitError{code: exitUsage}
}

func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see " + cmd.CommandPath() + " --help"
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean " + cmd.CommandPath() + " " + strings.Join(near, " or ") + "?"
	}
	return &exitError{
		code: exitUsage,
		err:  fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath()),
		hint: hint,
	}
}

// exactly is cobra.ExactArgs with our exit status and the names of what is missing.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return &exitError{code: exitUsage, err: fmt.Errorf("%s: missing %s", commandWords(cmd), names[len(args)]), hint: "usage: " + cmd.UseLine()}
		case len(args) > len(names):
			return &exitError{code: exitUsage, err: fmt.Errorf("%s: unexpected argument %q", commandWords(cmd), args[len(names)]), hint: "usage: " + cmd.UseLine()}
		}
		return nil
	}
}

// commandWords is a command's path without the program's name, which stands in front
// of every message.
func commandWords(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}
