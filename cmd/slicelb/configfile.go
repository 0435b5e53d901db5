package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/health"
)

// load reads the configuration that --config names, or the installed one.
func (g *globals) load(ctx context.Context) (*config.Config, config.Warnings, error) {
	src, err := config.At(g.config)
	if err != nil {
		return nil, nil, err
	}
	return read(ctx, src, reader(src))
}

// reader is who reads src for the daemon: the unit's user, where it is what is
// installed; else nobody knows.
func reader(src config.Source) string {
	if src.Enforce {
		return daemonUser
	}
	return ""
}

// loadOrExplain loads as the daemon does: ownership and mode are errors. An error
// says everything that is wrong and has the exit status of a bad configuration.
func (g *globals) loadOrExplain(ctx context.Context) (*config.Config, config.Warnings, error) {
	src, err := config.At(g.config)
	if err != nil {
		return nil, nil, badConfig(nil, err)
	}
	as := reader(src)
	src.Enforce = true
	cfg, warnings, err := read(ctx, src, as)
	if err != nil {
		return nil, nil, badConfig(warnings, err)
	}
	return cfg, warnings, nil
}

// badConfig is why a configuration cannot be loaded, with the exit status for it.
func badConfig(warnings config.Warnings, err error) error {
	var exit *exitError
	var bad *config.Error
	switch {
	case errors.As(err, &exit):
		return err
	case errors.As(err, &bad):
		err = errors.New(bad.Explain(warnings))
	}
	return &exitError{code: exitBadConfig, err: err}
}

// files is what became of reading them.
type files struct {
	cfg      *config.Config
	warnings config.Warnings
	err      error
}

// read loads, until ctx ends: where a pipe is read, nobody may ever write to it.
// It reads as the user as would, where that is not "" and this process may become
// that user.
func read(ctx context.Context, src config.Source, as string) (*config.Config, config.Warnings, error) {
	done := make(chan files, 1)
	go func() {
		if as != "" && become(as) {
			src.Reader = "the daemon's user " + as
		}
		done <- readAll(src)
	}()
	select {
	case f := <-done:
		return f.cfg, f.warnings, f.err
	case <-ctx.Done():
		return nil, nil, &exitError{code: exitFailed, err: errors.New("interrupted while the configuration was read")}
	}
}

// readAll reads the files, and those that they name.
func readAll(src config.Source) files {
	cfg, warnings, err := src.Load()
	if err != nil {
		return files{nil, warnings, err}
	}
	var broken []config.Problem
	for i := range cfg.VIPs {
		h := cfg.VIPs[i].Health
		if h == nil || h.CAFile == "" {
			continue
		}
		if _, err := health.ReadRoots(h.CAFile); err != nil {
			p := config.Problem{
				Pos: cfg.VIPs[i].Origin, Severity: config.SeverityWarning,
				Message: fmt.Sprintf("vip.%s.health: ca_file: %v", cfg.VIPs[i].Name, err),
			}
			if src.Enforce {
				p.Severity = config.SeverityError
				broken = append(broken, p)
			} else {
				warnings = append(warnings, p)
			}
		}
	}
	if len(broken) > 0 {
		return files{nil, warnings, &config.Error{Problems: broken}}
	}
	return files{cfg, warnings, nil}
}

// parseRunning reads what the daemon says it runs.
func parseRunning(r *api.RunningConfig) (*config.Config, error) {
	cfg, err := config.Parse("running configuration", []byte(r.TOML))
	if err != nil {
		return nil, fmt.Errorf("read what runs: %w", err)
	}
	cfg.Files = r.Files
	return cfg, nil
}

// runningConfig asks the daemon what it runs, and reads it.
func (g *globals) runningConfig(ctx context.Context) (*config.Config, error) {
	r, err := g.client().RunningConfig(ctx)
	if err != nil {
		return nil, err
	}
	return parseRunning(r)
}
