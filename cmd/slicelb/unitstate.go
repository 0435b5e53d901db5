package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/unitwatch"
)

// unitState asks systemd how the daemon's unit is: ActiveState and SubState, or
// nothing where nobody knows.
func unitState(ctx context.Context) (active, sub string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return stateOf(unitwatch.AskUnit(ctx, ownUnit))
}

// stateOf is a unit's state by systemd's answer. One that has stopped and that nothing
// wants, such as a target that it is enabled in, is not loaded any more. One that a job
// is to start, as between the two halves of a restart, is on its way.
func stateOf(u unitwatch.LoadedUnit, err error) (active, sub string) {
	switch {
	case errors.Is(err, unitwatch.ErrNotLoaded):
		return "inactive", "dead"
	case err != nil:
		return "", ""
	case (u.Active == "inactive" || u.Active == "failed") && u.StartJob:
		return "activating", ""
	}
	return u.Active, u.Sub
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
