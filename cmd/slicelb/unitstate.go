package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"

	"github.com/slicelb/slicelb/api"
)

// unitState asks systemd how the daemon's unit is: ActiveState and SubState, or
// nothing where nobody knows.
func unitState(ctx context.Context) (active, sub string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := systemd.NewSystemConnectionContext(ctx)
	if err != nil {
		return "", ""
	}
	defer conn.Close()
	// Loads nothing, as asking by name would.
	units, err := conn.ListUnitsByPatternsContext(ctx, nil, []string{ownUnit})
	if err != nil || len(units) != 1 {
		return "", ""
	}
	return units[0].ActiveState, units[0].SubState
}

// whyNotRunning says of a daemon that does not answer how its unit is, where systemd
// knows more than that it is to be started.
func whyNotRunning(ctx context.Context, e *env, err error) error {
	if e.unitState == nil || !errors.Is(err, api.ErrNotRunning) {
		return err
	}
	active, sub := e.unitState(ctx)
	is, hint := "", "systemctl status slicelb says more"
	switch active {
	case "activating", "reloading":
		is, hint = "is starting", "ask again in a moment; "+hint
	case "deactivating":
		is = "is stopping"
	case "active":
		is = "is active, and does not answer"
	case "failed":
		is, hint = "has failed", "journalctl --unit=slicelb says why; start it again: systemctl start slicelb"
	default:
		return err
	}
	if sub != "" && sub != active {
		is += " (" + sub + ")"
	}
	return &exitError{code: exitNotRunning, err: fmt.Errorf("%w; its unit %s", err, is), hint: hint}
}
