package api

import (
	"context"
	"net/http"
	"time"
)

// RunningConfig is what runs, as one merged file.
type RunningConfig struct {
	Path     string   `json:"path"`
	Files    []string `json:"files"`
	TOML     string   `json:"toml"`
	LastGood bool     `json:"last_good"`
}

// Reloaded is the answer to a reload that took effect.
type Reloaded struct {
	Writes   int           `json:"writes"`
	Took     time.Duration `json:"took_ns"`
	VIPs     int           `json:"vips"`
	Groups   int           `json:"groups"`
	Warnings []string      `json:"warnings"`
}

// RunningConfig asks for what runs; NotFound where the daemon has no configuration.
func (c *Client) RunningConfig(ctx context.Context) (*RunningConfig, error) {
	return get[RunningConfig](ctx, c, "/config")
}

// Reload has the daemon read its configuration again and returns when the
// kernel has it. BadConfig means that what ran before runs on.
func (c *Client) Reload(ctx context.Context, wait time.Duration) (*Reloaded, error) {
	// The daemon's own timeout comes first, so that its reason is seen.
	ctx, cancel := context.WithTimeout(ctx, wait+5*time.Second)
	defer cancel()
	return do[Reloaded](ctx, c, http.MethodPost, "/reload?timeout="+wait.String())
}
