package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
)

// newBackendSet makes the command that says state of backends.
func newBackendSet(g *globals, state, short, long string) *cobra.Command {
	var unit string
	var wait, force bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   state + " {VIP ADDRESS:PORT | --unit UNIT}",
		Short: short,
		Long: long + `

It is for root and the daemon's own user.

With --unit it is about every backend that the unit is, in every VIP, and holds
until the unit stops, fails or is started again. A unit that does not run is no
backend: that is said, and no error. One that no backend is named after is.`,
		Example: "  slicelb backend " + state + " db 192.0.2.11:5432\n  slicelb backend " + state + " --unit postgres@5432.service",
		Args: func(cmd *cobra.Command, args []string) error {
			if unit != "" {
				return exactly()(cmd, args)
			}
			return exactly("VIP", "ADDRESS:PORT")(cmd, args)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return g.completeBackend(cmd.Context(), args), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			change := api.BackendChange{Unit: unit, State: state, Force: force}
			if unit == "" {
				change.VIP, change.Address = args[0], args[1]
			}
			ctx := cmd.Context()
			if timeout < 0 {
				return usageErrorf("--timeout %v: want 0 or more", timeout)
			}
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			if err := g.setBackend(ctx, change); err != nil || !wait {
				return err
			}
			return g.waitDrained(ctx, change)
		},
	}
	if state != api.OrderReady {
		cmd.Flags().BoolVar(&wait, "wait", false, "return when no connection is left")
		cmd.Flags().BoolVar(&force, "force", false, "also where nothing of the VIP works then")
	}
	bound := "how `long` it may take; 0 is as long as it takes"
	if state != api.OrderReady {
		bound = "how `long` it may take in all; 0 is 5s for another backend to come, and no end of --wait"
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, bound)
	cmd.Flags().StringVar(&unit, "unit", "", "every backend that the unit `U` is")
	completions(cmd, map[string]cobra.CompletionFunc{"unit": g.completeOption(backendUnits)})
	return cmd
}

// setBackend has the daemon take backends out, or back in.
func (g *globals) setBackend(ctx context.Context, change api.BackendChange) error {
	out, err := g.order(ctx, change)
	if err != nil {
		return err
	}
	if change.Unit != "" && len(out.Backends) == 0 {
		// No error: a unit that stops may have stopped already.
		fmt.Fprintf(g.stderr, "slicelb: unit %s is no backend now\nhint: slicelb backend list -o wide\n", prose.Foreign(change.Unit))
		return nil
	}
	var names []string
	for _, b := range out.Backends {
		name := fmt.Sprintf("backend %s of %s", b.Address, b.VIP)
		names = append(names, name)
		if b.Before == change.State {
			fmt.Fprintf(g.stderr, "slicelb: %s: %s already\n", name, stateText(change.State))
		}
		if b.Down != "" {
			fmt.Fprintf(g.stderr, "slicelb: %s takes no connections yet: %s\n", name, prose.OneLine(b.Down))
		}
	}
	if out.Forgotten != "" {
		return &exitError{
			code: exitFailed, err: fmt.Errorf("%s is %s, but a restart of the daemon forgets it: %s", strings.Join(names, ", "), stateText(change.State), out.Forgotten),
		}
	}
	return nil
}

// order waits for a daemon that restarts: a unit that stops may ask, and the kernel
// still sends to it.
func (g *globals) order(ctx context.Context, change api.BackendChange) (*api.BackendChanged, error) {
	begun := time.Now()
	tick := time.NewTicker(waitInterval)
	defer tick.Stop()
	for {
		if end, ok := ctx.Deadline(); ok {
			// The daemon's answer comes first, so that its reason is seen.
			change.Wait = max(time.Until(end)*19/20, time.Millisecond)
		}
		out, err := g.client().SetBackend(ctx, change)
		if api.IsBusy(err) {
			begun = time.Now() // it had the order until now
		}
		if err == nil || !g.restarts(ctx, err) || time.Since(begun) > waitPatience {
			return out, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-tick.C:
		}
	}
}

// restarts reports whether a daemon that did not answer may do so before long.
func (g *globals) restarts(ctx context.Context, err error) bool {
	var refused *api.Error
	switch {
	case ctx.Err() == nil && api.IsBusy(err):
		return true
	case ctx.Err() != nil, errors.As(err, &refused), errors.Is(err, api.ErrNotPermitted):
		return false
	case !errors.Is(err, api.ErrNotRunning):
		return true // it ended while it was asked
	case g.unitState == nil:
		return false
	}
	active, _ := g.unitState(ctx)
	return active == "activating" || active == "deactivating" || active == "reloading" || active == "active"
}
