package main

import (
	"errors"

	"github.com/slicelb/slicelb/config"
)

// load reads the configuration that --config names, or the installed one.
func (g *globals) load() (*config.Config, config.Warnings, error) {
	src, err := config.At(g.config)
	if err != nil {
		return nil, nil, err
	}
	return src.Load()
}

// loadOrExplain loads as the daemon does: ownership and mode are errors. An error
// says everything that is wrong and has the exit status of a bad configuration.
func (g *globals) loadOrExplain() (*config.Config, config.Warnings, error) {
	src, err := config.At(g.config)
	if err != nil {
		return nil, nil, badConfig(nil, err)
	}
	src.Enforce = true
	cfg, warnings, err := src.Load()
	if err != nil {
		return nil, nil, badConfig(warnings, err)
	}
	return cfg, warnings, nil
}

// badConfig is why a configuration cannot be loaded, with the exit status for it.
func badConfig(warnings config.Warnings, err error) error {
	var bad *config.Error
	if errors.As(err, &bad) {
		err = errors.New(bad.Explain(warnings))
	}
	return &exitError{code: exitBadConfig, err: err}
}

// parseRendered reads what the daemon says it runs.
func parseRendered(text string) (*config.Config, error) {
	return config.Parse("running configuration", []byte(text))
}
