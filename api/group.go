package api

import (
	"context"
	"net/url"
)

// Group is one configured group, with the split children it has.
type Group struct {
	Name      string   `json:"name"`
	Slices    []string `json:"slices"`
	Split     string   `json:"split,omitempty"`
	Translate bool     `json:"translate"`
	Policy    string   `json:"policy"` // its default: allow or deny
	Strict    bool     `json:"strict"`
	Denied    []Denied `json:"denied,omitempty"`
	Cgroups   []Cgroup `json:"cgroups"` // anchors and members; null in listings
	Anchors   int      `json:"anchors"` // that exist
	Members   int      `json:"members"`
	Pending   []string `json:"pending"`
	Origin    string   `json:"origin"`
}

// Cgroup is a directory that has a group. Path and Unit are other people's
// text: quote them.
type Cgroup struct {
	ID     uint64 `json:"id"`
	Path   string `json:"path"` // below the cgroup root
	Group  string `json:"group"`
	Anchor bool   `json:"anchor"`
	Split  bool   `json:"split"`
	Unit   string `json:"unit,omitempty"`
}

// Group asks for one group, or a split child of one, with its cgroups.
func (c *Client) Group(ctx context.Context, name string) (*Group, error) {
	return get[Group](ctx, c, "/groups/"+url.PathEscape(name))
}
