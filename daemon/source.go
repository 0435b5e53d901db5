package daemon

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// source is a configuration and what follows from it alone.
type source struct {
	cfg      *config.Config // with a backend for each unit that is one
	said     *config.Config // as the files have it
	patterns []string       // of units, in said
	ends     *discover.Endpoints
	tree     *anchor.Tree
	warnings []string
	lastGood bool // restored from the descriptor store
	loaded   time.Time
	checks   map[string]*health.Check // by VIP
	broken   error                    // why some of checks cannot be made
	emptied  int                      // VIPs that ran before, where there is none any more
	stands   standing                 // nil: nobody knows
}

// replacedBy is config.Config.Replaces, where s, which may be nil, runs.
func (s *source) replacedBy(next *config.Config) error {
	if s == nil {
		return next.Replaces(nil)
	}
	return next.Replaces(s.said)
}

// after takes note of what s, which is to run, takes away as a whole, and of what is
// new. Before that ran before, which is nil where nothing did, or, to who has inherited
// something, where nobody knows what.
func (s *source) after(before *source, inherited bool) {
	if before != nil && len(s.cfg.VIPs) == 0 {
		s.emptied = len(before.cfg.VIPs)
	}
	if before != nil || !inherited {
		s.stands = standingAfter(s.said, before, time.Now())
	}
}

func emptiedText(n int) string {
	return fmt.Sprintf("no VIP is configured any more: %s taken away", prose.Plural(n, "VIP"))
}

// vip is the VIP of a name; nil: there is none, or nothing runs.
func (s *source) vip(name string) *config.VIP {
	if s == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(s.cfg.VIPs, name, func(v config.VIP, name string) int { return strings.Compare(v.Name, name) })
	if !ok {
		return nil
	}
	return &s.cfg.VIPs[i]
}

// all are the backends.
func (s *source) all() map[lb.Endpoint]bool {
	out := map[lb.Endpoint]bool{}
	for i := range s.cfg.VIPs {
		v := &s.cfg.VIPs[i]
		endpoints(v, func(b config.Backend) { out[lb.Endpoint{VIP: v.Name, Addr: b.Addr}] = true })
	}
	return out
}

// group is the configured group of a name; nil: there is none, or nothing runs.
func (s *source) group(name string) *config.Group {
	if s == nil {
		return nil
	}
	i := slices.IndexFunc(s.cfg.Groups, func(g config.Group) bool { return g.Name == name })
	if i < 0 {
		return nil
	}
	return &s.cfg.Groups[i]
}

// noVIP answers a question about a VIP that there is not.
func noVIP(name string) *api.Error {
	return &api.Error{Code: api.NotFound, Text: fmt.Sprintf("no VIP %q", name), Hint: "slicelb vip list"}
}

// noGroup answers a question about a group that there is not.
func noGroup(name string) *api.Error {
	if name == lb.HostGroup {
		return &api.Error{Code: api.NotFound, Text: fmt.Sprintf("%q is everybody that no group covers", name), Hint: "slicelb explain says who"}
	}
	return &api.Error{Code: api.NotFound, Text: fmt.Sprintf("no group %q", name), Hint: "slicelb group list"}
}

// newSource compiles what cfg says about cgroups.
func newSource(cfg *config.Config, warnings config.Warnings) (*source, error) {
	tree, err := cfg.Tree()
	if err != nil {
		return nil, fmt.Errorf("groups: %w", err)
	}
	s := &source{cfg: cfg, said: cfg, patterns: cfg.UnitPatterns(), tree: tree, loaded: time.Now()}
	s.ends = &discover.Endpoints{Config: cfg}
	s.checks, s.broken = checksOf(cfg)
	for _, w := range warnings {
		s.warnings = append(s.warnings, fmt.Sprintf("%s: %s", w.Pos, w.Message))
	}
	return s, nil
}
