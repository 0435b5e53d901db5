package api

import "context"

// Dump is the text of what the kernel's maps hold, one entry a line, sorted.
type Dump struct {
	Lines []string `json:"lines"`
}

// Dump asks for what the kernel's maps hold.
func (c *Client) Dump(ctx context.Context) (*Dump, error) {
	return get[Dump](ctx, c, "/dump")
}
