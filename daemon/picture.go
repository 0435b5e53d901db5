package daemon

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
)

// What a page can show of a configuration that is larger.
const (
	pictureVIPs   = 1000
	pictureGroups = 1000
)

// picture is the daemon for the status page.
func (a answers) picture(ctx context.Context) (*api.Picture, error) {
	v, err := a.readable(ctx)
	if err != nil {
		return nil, err
	}
	at := time.Now()
	s, c, err := a.status(v)
	if err != nil {
		return nil, err
	}
	return pictureOf(s, callsOf(c, toVIPs), at), nil
}

// pictureOf is what anybody may see of a status.
func pictureOf(s *api.Status, calls []api.Calls, at time.Time) *api.Picture {
	p := &api.Picture{
		At: at, State: s.State, Version: s.Version, Started: s.Started, Loaded: s.Config.Loaded, Attached: s.DataPlane.Attached,
		Problems: []string{}, Notes: len(s.Notes), VIPs: []api.PictureVIP{}, Groups: []api.PictureGroup{}, Calls: []api.Calls{},
	}
	for _, text := range s.Problems {
		p.Problems = append(p.Problems, problemKind(text))
	}
	for i := range s.VIPs {
		up, all := activeOf(&s.VIPs[i])
		p.Up, p.Backends = p.Up+up, p.Backends+all
	}
	vips, groups := s.VIPs, s.Groups
	if n := len(vips); n > pictureVIPs {
		p.MoreVIPs, vips = n-pictureVIPs, foremost(vips, pictureVIPs)
	}
	if n := len(groups); n > pictureGroups {
		p.MoreGroups, groups = n-pictureGroups, groups[:pictureGroups]
	}
	shown, known := map[string]bool{}, map[string]bool{lb.HostGroup: true}
	for i := range vips {
		shown[vips[i].Name] = true
		p.VIPs = append(p.VIPs, pictureVIP(&vips[i]))
	}
	for i := range groups {
		g := &groups[i]
		known[g.Name] = true
		p.Groups = append(p.Groups, api.PictureGroup{
			Name: g.Name, Split: g.Split != "", Translate: g.Translate, Slices: len(g.Slices), Pending: len(g.Pending), Anchors: g.Anchors, Members: g.Members,
		})
	}
	for _, call := range calls {
		if shown[call.VIP] && known[call.Group] {
			p.Calls = append(p.Calls, call)
		}
	}
	return p
}

// foremost are n of the VIPs, by name: what is not well first, then the busiest since
// they exist, in the order in which the page itself chooses what to draw.
func foremost(vips []api.VIP, n int) []api.VIP {
	type rank struct {
		v     *api.VIP
		well  int
		calls uint64
	}
	ranks := make([]rank, len(vips))
	for i := range vips {
		v := &vips[i]
		ranks[i] = rank{v, 0, v.Counters.Connects + v.Counters.Flows}
		if up, all := activeOf(v); up > 0 && up == all {
			ranks[i].well = 1
		}
	}
	slices.SortFunc(ranks, func(a, b rank) int {
		return cmp.Or(cmp.Compare(a.well, b.well), cmp.Compare(b.calls, a.calls), strings.Compare(a.v.Name, b.v.Name))
	})
	out := make([]api.VIP, n)
	for i := range out {
		out[i] = *ranks[i].v
	}
	slices.SortFunc(out, func(a, b api.VIP) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// activeOf counts a VIP's backends, and those that are active. One that a view shares
// with its VIP is one.
func activeOf(v *api.VIP) (up, all int) {
	seen := map[string]bool{}
	for _, b := range v.All() {
		if seen[b.Address] {
			continue
		}
		seen[b.Address] = true
		if all++; b.State == bpf.BackendActive.String() {
			up++
		}
	}
	return up, all
}

// problemKind is a problem without what it quotes, which stands behind a colon or on lines
// of its own: see view.problem.
func problemKind(problem string) string {
	first, _, _ := strings.Cut(problem, "\n")
	kind, _, _ := strings.Cut(first, ": ")
	return kind
}

func pictureVIP(v *api.VIP) api.PictureVIP {
	out := api.PictureVIP{
		Name: v.Name, Frontends: v.Frontends, Backends: pictureBackends(v.Backends), For: []api.PictureView{},
		Clients: v.Clients, Except: v.Except, WhenDown: v.WhenDown, Counters: v.Counters,
	}
	for i := range v.For {
		out.For = append(out.For, api.PictureView{Group: v.For[i].Group, Backends: pictureBackends(v.For[i].Backends)})
	}
	return out
}

func pictureBackends(list []api.Backend) []api.PictureBackend {
	out := make([]api.PictureBackend, len(list))
	for i := range list {
		b := &list[i]
		out[i] = api.PictureBackend{
			VIP: b.VIP, Group: b.Group, Address: b.Address, Weight: b.Weight, State: b.State, Reason: keptOutBy(b),
			Since: b.Since, Share: b.Share, Live: b.Live, Counters: b.Counters,
		}
		if c := b.Check; c != nil {
			out[i].Check = &api.PictureCheck{Type: c.Type, State: c.State, Took: c.Took, Count: c.Count}
		}
	}
	return out
}

// keptOutBy is the reason of a backend's state, in words of this program alone.
func keptOutBy(b *api.Backend) string {
	switch {
	case b.Order == api.OrderDrain:
		return "drained"
	case b.Order == api.OrderMaint:
		return "in maintenance"
	case b.UnitState == discover.Activating.String():
		return "is starting"
	case b.UnitState == discover.Deactivating.String():
		return "is stopping"
	case b.UnitState == discover.Failed.String():
		return "has failed"
	case b.UnitState == discover.Waiting.String():
		return "waits to be restarted"
	case b.Check != nil && b.Check.State == health.Down.String():
		return "fails its checks"
	case b.Check != nil && b.Check.State == health.Unchecked.String():
		return "not checked yet"
	case b.Weight == 0:
		return "weight 0"
	}
	return ""
}
