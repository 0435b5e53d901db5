package daemon

import (
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/slicelb/slicelb/observe"
	"github.com/slicelb/slicelb/unitwatch"
)

// callers says who calls: by the newest snapshot of the cgroups that belong to
// groups, and by the names of directories that the kernel gives of the others.
// The observer's goroutine owns it, but for view.
type callers struct {
	view *atomic.Pointer[view]
	snap *unitwatch.Snapshot // that byID is of
	byID map[uint64]*unitwatch.Cgroup
	made time.Time
}

// indexInterval is how often a snapshot is looked through: ids are never used
// again, so an older one is not wrong.
const indexInterval = 200 * time.Millisecond

func (c *callers) find(id uint64) *unitwatch.Cgroup {
	if g, ok := c.byID[id]; ok || id == 0 {
		return g
	}
	v := c.view.Load()
	if v == nil || v.snap == nil || v.snap == c.snap || time.Since(c.made) < indexInterval {
		return nil
	}
	c.snap, c.made = v.snap, time.Now()
	c.byID = make(map[uint64]*unitwatch.Cgroup, len(v.snap.Cgroups))
	for i := range v.snap.Cgroups {
		c.byID[v.snap.Cgroups[i].ID] = &v.snap.Cgroups[i]
	}
	return c.byID[id]
}

// name fills in the caller's unit and path, and the group of a split child.
func (c *callers) name(e *observe.Event) {
	own, member := c.find(e.Cgroup), c.find(e.Member)
	dir, parent := e.Dir.String(), e.Parent.String()
	// The programs know a split child by its parent's group.
	if member != nil && strings.HasPrefix(member.Group, e.Group+"/") {
		e.Group = member.Group
	}
	switch {
	case own != nil && own.Unit != "":
		e.Unit = own.Unit
	case member != nil && member.Unit != "" && !strings.HasSuffix(member.Unit, ".slice"):
		e.Unit = member.Unit
	case isUnit(dir):
		e.Unit = dir
	case isUnit(parent):
		e.Unit = parent
	}
	switch {
	case own != nil:
		e.Path = own.Path
	case member != nil && path.Base(member.Path) == parent:
		e.Path = path.Join(member.Path, dir)
	case member != nil:
		e.Path = path.Join(member.Path, "…", parent, dir)
	case dir != "":
		e.Path = path.Join("…", parent, dir)
	}
}

// isUnit reports whether a directory is called like a unit that holds processes.
func isUnit(dir string) bool {
	return strings.HasSuffix(dir, ".service") || strings.HasSuffix(dir, ".scope")
}
