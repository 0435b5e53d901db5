package unitwatch

import (
	"slices"
	"strings"
	"time"

	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// Mode says what the watcher learns from.
type Mode uint8

const (
	CgroupfsOnly Mode = iota // no systemd answers on the bus: Snapshot.Cause says why
	Bus                      // systemd's signals arrive too
)

func (m Mode) String() string {
	if m == Bus {
		return "bus"
	}
	return "cgroupfs only"
}

// Snapshot is which cgroup belongs to which group at one moment. It is
// immutable: nobody may change it or what it points to.
type Snapshot struct {
	Tree     *anchor.Tree // whose nodes and matches these are
	Root     uint64       // cgroup id of the root
	Cgroups  []Cgroup     // sorted by path; the root is among them
	Pending  []string     // patterns that name no directory now, in load order
	Mode     Mode
	Cause    string // why not Bus; "" = all is well
	Complete bool   // every directory was looked at: what is not here does not exist, or lies in a closed one
	Failed   string // why not Complete, for the first of Failures directories
	Failures int
	Reloads  uint64 // how often systemd said that it reloaded its units

	// Walked is when the newest walk over everything began. What existed then
	// and still does is here; after a HintLost or HintAll a Snapshot follows in any case.
	Walked time.Time

	// Hinted is when the oldest event happened that announced a directory which
	// no Snapshot had before this one. Zero = there is none.
	Hinted time.Time
}

// Cgroup is a directory that the tree knows (on the way, anchor, split child,
// searched for split children), a member, or closed.
type Cgroup struct {
	ID     uint64        // the directory's inode number, which is the kernel's cgroup id
	Path   string        // below the root, "/web.slice"
	Match  *anchor.Match // never nil; cgroups that are alike share it
	Member bool          // a scope, a service or a bare cgroup below an anchor

	// Foreign is set below a directory that was delegated: others than root can make
	// such a cgroup, and any number of them.
	Foreign bool

	// Closed is set where its owner does not let it be looked into, and where it lies
	// too deep: what is in it is not here, but may be in the kernel's table.
	Closed bool

	// What systemd's own manager calls it: "" for what it does not know, such as
	// directories made by others and units of a user's manager.
	Unit string

	// Group is the group of the processes in it, its own or that of its nearest
	// ancestor that has one; a split child's is "jobs/x.scope", or by another name
	// where its own is a container's id and a person knows it by that: "jobs/db".
	// What stands behind the slash is other people's text. "" = none.
	Group string

	about *about
}

// InvocationID is systemd's for this run of the unit: 32 hexadecimal digits, or ""
// while it is not known.
func (c *Cgroup) InvocationID() string { return c.about.invoked() }

// Description is the unit's, which is other people's text; "" until systemd was
// asked.
func (c *Cgroup) Description() string { return c.about.described() }

// snapshot is built from the hierarchy as it stands.
func (h *hierarchy) snapshot() *Snapshot {
	s := &Snapshot{Tree: h.tree, Root: h.top.id}
	s.Cgroups = make([]Cgroup, 0, len(h.byID))
	n := namer{total: map[string]int{}}
	n.count(h.top)
	named := map[string]bool{} // patterns
	var add func(d *dir, group string, foreign bool)
	add = func(d *dir, group string, foreign bool) {
		switch {
		case d.match.Split:
			group = n.name(d)
		case d.match.Group != "":
			group = d.match.Group
		}
		if d.match.Anchor {
			named[d.match.Pattern] = true
			for _, p := range d.match.Same {
				named[p] = true
			}
			for _, p := range d.match.Lost {
				named[p] = true
			}
		}
		if d.known || d.member || d.closed {
			s.Cgroups = append(s.Cgroups, Cgroup{
				ID: d.id, Path: d.path, Match: d.match, Member: d.member, Foreign: foreign, Closed: d.closed,
				Unit: d.unit(), Group: group, about: d.about,
			})
		}
		for _, c := range d.children {
			add(c, group, foreign || d.delegated)
		}
	}
	add(h.top, "", false)
	slices.SortFunc(s.Cgroups, func(a, b Cgroup) int { return strings.Compare(a.Path, b.Path) })
	for _, p := range h.tree.Patterns() {
		if !named[p] {
			named[p] = true // once, should two groups name it
			s.Pending = append(s.Pending, p)
		}
	}
	return s
}

// namer gives split children their groups' names: as short as tells them apart.
type namer struct {
	total map[string]int // candidates by name
}

func (n namer) count(d *dir) {
	if d.match.Split {
		if r := recognised(d); r != "" {
			n.total[d.match.Group+"/"+r]++
		}
		n.total[splitName(d, 1)]++
		n.total[splitName(d, 2)]++
	}
	for _, c := range d.children {
		n.count(c)
	}
}

func (n namer) name(d *dir) string {
	if r := recognised(d); r != "" && n.total[d.match.Group+"/"+r] == 1 {
		return d.match.Group + "/" + r
	}
	for components := 1; components <= 2; components++ {
		if name := splitName(d, components); n.total[name] == 1 {
			return name
		}
	}
	return d.match.Group + d.path
}

// splitName is jobs/<basename>, or with more components jobs/<parent>/<basename>.
func splitName(d *dir, components int) string {
	name := d.name
	for p := d.parent; components > 1 && p != nil && p.parent != nil; components-- {
		name = p.name + "/" + name
		p = p.parent
	}
	return d.match.Group + "/" + name
}
