package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/slicelb/slicelb/api"
)

// Exit statuses; systemd's unit and scripts rely on them.
const (
	exitOK           = 0
	exitFailed       = 1 // status: degraded; diff: differs
	exitUsage        = 2
	exitNotRunning   = 3 // or it does not answer
	exitNoObject     = 4
	exitNotPermitted = 77
	exitBadConfig    = 78
)

// exitError ends the program with code. A nil err prints nothing: the command
// has said all there is to say.
type exitError struct {
	code int
	err  error
	hint string
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usageErrorf(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// report prints err, with a hint where there is one, and returns the status.
func report(e *env, err error) int {
	if err == nil {
		return exitOK
	}
	code, hint := exitFailed, ""
	var exit *exitError
	var answer *api.Error
	switch {
	case errors.As(err, &exit):
		code, hint = exit.code, exit.hint
		if exit.err == nil {
			return code
		}
	case errors.Is(err, api.ErrNotRunning):
		code, hint = exitNotRunning, "start it: systemctl start slicelb"
	case errors.Is(err, api.ErrNoAnswer):
		code, hint = exitNotRunning, "systemctl status slicelb says how it stands; restart it if it stays so"
	case errors.Is(err, api.ErrNotPermitted):
		code, hint = exitNotPermitted, "run it as root, or as a member of the group slicelb"
	case errors.As(err, &answer):
		code, hint = answerStatus(answer.Code), answer.Hint
	case errors.Is(err, context.Canceled):
		hint = "interrupted"
	}
	fmt.Fprintf(e.stderr, "slicelb: %v\n", err)
	if hint != "" {
		fmt.Fprintf(e.stderr, "hint: %s\n", hint)
	}
	return code
}

func answerStatus(c api.Code) int {
	switch c {
	case api.BadRequest:
		return exitUsage
	case api.NotFound:
		return exitNoObject
	case api.Forbidden:
		return exitNotPermitted
	case api.BadConfig:
		return exitBadConfig
	default:
		return exitFailed
	}
}
