package daemon

import (
	"fmt"
	"strings"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/unitwatch"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// findLevel finds how deep in the hierarchy the cgroup root lies: the programs count
// levels from the hierarchy's own root, whatever is visible here.
func (d *daemon) findLevel() {
	level, err := rootLevel(d.root)
	if err != nil {
		d.log.Warn("level of the cgroup root", "err", err)
	}
	d.rootLevel = level
}

// rootLevel is 0 for the hierarchy's own root. With an error it is how many levels are
// visible above the root, which may lie deeper.
func rootLevel(root unitwatch.Root) (int, error) {
	if !root.Namespaced {
		return 0, nil
	}
	top, below, err := root.Top()
	if err != nil || unitwatch.IsHierarchyRoot(top) {
		return below, err
	}
	level, found, err := bpf.Level(top)
	if err == nil && !found {
		err = fmt.Errorf("cgroup %d: this process is outside of it", top)
	}
	return below + level, err
}

// tooDeep refuses slices in which the programs would not look for callers further down.
func tooDeep(cfg *config.Config, rootLevel int) error {
	if rootLevel == 0 {
		return nil // the configuration has been checked
	}
	for _, g := range cfg.Groups {
		for _, a := range g.Anchors {
			if n := strings.Count(strings.TrimSuffix(a.Pattern, "/"), "/"); n+rootLevel > anchor.MaxLevel {
				return fmt.Errorf("%s: slice %s of group.%s lies %s below the cgroup root, which is at level %d itself: %d at most",
					a.Origin, prose.Foreign(a.Text), g.Name, prose.Plural(n, "level"), rootLevel, max(0, anchor.MaxLevel-rootLevel))
			}
		}
	}
	return nil
}
