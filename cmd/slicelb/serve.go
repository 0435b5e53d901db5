package main

import (
	"context"
	"errors"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/daemon"
	"github.com/slicelb/slicelb/unitwatch"
)

func newServe(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Run the daemon: read the configuration, follow systemd and the cgroup tree, and
keep the kernel at what both say. It is ready when every VIP is in the kernel.

Under systemd the data plane is kept in the unit's descriptor store: it goes on
through restarts, upgrades and kills, and ends with systemctl stop. Elsewhere it
ends with the process.

SIGHUP and slicelb reload load the configuration again; one with errors changes
nothing. At the first start a configuration with errors exits 78; a start that
finds a data plane of an earlier process serves that one's configuration then.`,
		Example: "  systemctl start slicelb\n  slicelb serve --config ./slicelb.toml --socket /tmp/slicelb.sock",
		Args:    exactly(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), g) },
	}
}

func serve(ctx context.Context, g *globals) error {
	// Without this a panic, or the watchdog's SIGABRT, exits with status 2, which
	// prevents a restart; with it the process dies by the signal.
	debug.SetTraceback("crash")
	// Most of the heap lives long; what comes beside it is short of life and rare.
	debug.SetGCPercent(25)
	hangup, stop := g.hup()
	defer stop()
	return notServed(daemon.Run(ctx, daemon.Options{
		Config: g.config, Socket: g.socket, CgroupRoot: g.cgroupRoot, Version: versionString(),
		Log: g.stderr, Lookup: g.lookup, Unset: g.unset, Hangup: hangup,
	}))
}

// notServed says what to do about a daemon that ended by itself, and has the unit
// try again or not.
func notServed(err error) error {
	var bad *daemon.ConfigError
	var root *unitwatch.RootError
	switch {
	case errors.As(err, &bad):
		return &exitError{code: exitBadConfig, err: err}
	case errors.As(err, &root):
		return refused(err)
	case errors.Is(err, daemon.ErrRunning):
		return &exitError{code: exitFailed, err: err, hint: "stop it first: systemctl stop slicelb"}
	case errors.Is(err, os.ErrPermission):
		return &exitError{code: exitNotPermitted, err: err, hint: "run it as root, or by its unit: systemctl start slicelb"}
	case errors.Is(err, bpf.ErrNotSupported):
		return &exitError{code: exitBadConfig, err: err, hint: "slicelb doctor says what this host lacks"}
	}
	return err
}
