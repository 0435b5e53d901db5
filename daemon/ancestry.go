package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// ancestor is a cgroup on the way from a caller to the root.
type ancestor struct {
	path string
	id   uint64 // 0 = it does not exist any more
}

// hidden is no cgroup's id: this one lies in a closed cgroup, if it is there at all.
const hidden = math.MaxUint64

// deleted is what /proc/PID/cgroup puts behind the path of a cgroup that is gone.
// It may also be the end of a living one's name.
const deleted = " (deleted)"

// ancestry is a cgroup and all above it, innermost first. No component may be a
// link; cgroupfs has none. A process may outlive its cgroup, so what is missing
// then is part of the answer. ids are of those that this process may not see.
func ancestry(root, cgroup string, process bool, ids []uint64) ([]ancestor, error) {
	if living, ok := strings.CutSuffix(cgroup, deleted); ok && process {
		if _, err := cgroupID(root, cgroup); errors.Is(err, errNoCgroup) && living != "/" {
			cgroup = living
		}
	}
	var line []ancestor
	for p := cgroup; ; p = path.Dir(p) {
		id, err := cgroupID(root, p)
		switch {
		case errors.Is(err, fs.ErrPermission):
			id = hidden
			if n := len(line); n < len(ids) {
				id = ids[n]
			}
		case errors.Is(err, errNoCgroup) && process && p != "/":
			id = 0
		case errors.Is(err, errNoCgroup):
			return nil, &api.Error{Code: api.NotFound, Text: fmt.Sprintf("cgroup %s does not exist", prose.Foreign(p)), Hint: "a path below " + root}
		case err != nil:
			return nil, err
		}
		line = append(line, ancestor{p, id})
		if p == "/" {
			return line, nil
		}
	}
}

var errNoCgroup = errors.New("does not exist")

func cgroupID(root, p string) (uint64, error) {
	var st unix.Stat_t
	err := unix.Lstat(filepath.Join(root, p), &st)
	switch {
	case errors.Is(err, unix.ENAMETOOLONG) && len(root)+len(p) >= unix.PathMax:
		return hidden, nil // too deep to be looked into
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENAMETOOLONG):
		return 0, errNoCgroup
	case err != nil:
		return 0, fmt.Errorf("cgroup %s: %w", prose.Foreign(p), err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return 0, api.Errorf(api.NotFound, "cgroup %s is no folder", prose.Foreign(p))
	}
	return st.Ino, nil
}

// caller is who asks, as the programs see it.
type caller struct {
	line  []ancestor
	rules map[uint64]bpf.Rule          // the kernel's entries of line
	known map[uint64]*unitwatch.Cgroup // what the watcher knows of line
	by    int                          // which of line decides; -1 = none
	group uint32                       // 0 = the host
	name  string

	elsewhere bool // in another network namespace than the daemon

	policy      *bpf.PolicyIndex // in force; nil: none
	policyRules []config.Rule    // that it is made of; nil: not known
}

// callerOf looks the group up as group_of_current() in the programs does: the nearest
// cgroup that has one, the caller's own or one above it that lies no deeper than
// anchor.MaxLevel in the hierarchy, whose level top is the last of line. The snapshot,
// which may be nil, adds what only user space knows: units, and the names of split
// children.
func callerOf(d *bpf.Dump, line []ancestor, top int, snap *unitwatch.Snapshot) caller {
	c := caller{line: line, by: -1, name: lb.HostGroup, rules: map[uint64]bpf.Rule{}, known: map[uint64]*unitwatch.Cgroup{}}
	for i, a := range line {
		if r, ok := d.Cgroups[a.id]; ok && a.id != 0 {
			c.rules[a.id] = r
			level := top + len(line) - 1 - i
			if r.Group != 0 && c.by < 0 && (i == 0 || level <= anchor.MaxLevel) {
				c.by, c.group, c.name = i, r.Group, d.Groups[r.Group].Name
			}
		}
		c.known[a.id] = nil
	}
	if snap == nil {
		return c
	}
	for i := range snap.Cgroups {
		g := &snap.Cgroups[i]
		if _, asked := c.known[g.ID]; !asked {
			continue
		}
		c.known[g.ID] = g
		if c.by >= 0 && line[c.by].id == g.ID && g.Group != "" && c.name != lb.DaemonGroup {
			c.name = g.Group // of a split child; the daemon's own cgroup has what is around it here
		}
	}
	return c
}

// explanation begins one: who the caller is.
func (c caller) explanation() *api.Explanation {
	own := c.line[0]
	x := &api.Explanation{Cgroup: own.path, Gone: own.id == 0, Group: c.name, Backends: []api.Backend{}}
	closed := -1
	for i, at := range c.line {
		a := api.Ancestor{Path: at.path, ID: at.id, Decides: i == c.by}
		if at.id == hidden {
			a.ID, a.Hidden, closed = 0, true, i+1
		}
		rule, mapped := c.rules[at.id]
		if mapped {
			a.Kind = "way"
			if rule.Group != 0 {
				a.Kind = "new" // not seen by user space yet
			}
		}
		if known := c.known[at.id]; known != nil {
			a.Unit = known.Unit
			if mapped {
				a.Kind = kindOf(known)
			}
			if rule.Group != 0 {
				a.Group = known.Group
			}
		}
		if a.Decides {
			a.Group = c.name
			x.Decided = at.path
			if known := c.known[at.id]; known != nil {
				x.Pattern = known.Match.Pattern
			}
		}
		x.Ancestors = append(x.Ancestors, a)
	}
	found := "no group covers it: " + lb.HostGroup
	if c.by >= 0 {
		found = fmt.Sprintf("group %s, by %s", prose.Foreign(x.Group), prose.Foreign(x.Decided))
	}
	if x.Gone {
		found = "this cgroup is gone; " + found
	}
	x.Steps = append(x.Steps, api.Step{Look: "caller " + prose.Foreign(own.path), Found: found})
	if closed >= 0 {
		x.Steps = append(x.Steps, api.Step{
			Look: "cgroup " + prose.Foreign(c.line[closed].path), Found: "may not be looked into: what the kernel has mapped there decides first, and is not seen here",
		})
	}
	return x
}

func kindOf(c *unitwatch.Cgroup) string {
	switch {
	case c.Match.Anchor:
		return "anchor"
	case c.Match.Split:
		return "split"
	case c.Member:
		return "member"
	}
	return "way"
}
