package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/slicelb/slicelb/config"
)

// load reads the configuration that --config names, or the installed one.
func (g *globals) load() (*config.Config, config.Warnings, error) {
	return loadConfig(g.config)
}

func loadConfig(path string) (*config.Config, config.Warnings, error) {
	if path == "" {
		return config.Installed("").Load()
	}
	src, err := config.FromPath(path)
	if err != nil {
		return nil, nil, err
	}
	return src.Load()
}

// enforced loads as the daemon does: ownership and mode are errors.
func enforced(path string) (*config.Config, config.Warnings, error) {
	if path == "" {
		return config.Installed("").Load()
	}
	src, err := config.FromPath(path)
	if err != nil {
		return nil, nil, err
	}
	src.Enforce = true
	return src.Load()
}

// loadOrExplain loads as the daemon does; an error says everything that is
// wrong and has the exit status of a bad configuration.
func (g *globals) loadOrExplain() (*config.Config, config.Warnings, error) {
	cfg, warnings, err := enforced(g.config)
	if err == nil {
		return cfg, warnings, nil
	}
	var bad *config.Error
	if !errors.As(err, &bad) {
		return nil, nil, &exitError{code: exitBadConfig, err: err}
	}
	return nil, nil, &exitError{code: exitBadConfig, err: configError(warnings, bad)}
}

// configError is every problem, and their number in the last line.
func configError(warnings config.Warnings, bad *config.Error) error {
	return fmt.Errorf("bad configuration\n%s%s", problems(warnings, bad), plural(len(bad.Problems), "error"))
}

// problems is the text of errors and warnings together, in reading order.
func problems(warnings config.Warnings, bad *config.Error) string {
	all := append(append([]config.Problem{}, bad.Problems...), warnings...)
	config.Sort(all)
	var b strings.Builder
	for _, p := range all {
		if _, err := p.WriteTo(&b); err != nil { // a Builder takes everything
			return err.Error()
		}
	}
	return b.String()
}

// parseRendered reads what the daemon says it runs.
func parseRendered(text string) (*config.Config, error) {
	return config.Parse("running configuration", []byte(text))
}

// render is the configuration as one file.
func render(c *config.Config, origins bool) (string, error) {
	var b strings.Builder
	if err := c.Render(&b, origins); err != nil {
		return "", err
	}
	return b.String(), nil
}
