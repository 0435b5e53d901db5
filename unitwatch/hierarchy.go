package unitwatch

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// maxDepth bounds the descriptors that a walk holds open at once. Deeper
// directories are closed.
const maxDepth = 256

// hierarchy is the watched part of the cgroup tree as it was when last looked
// at. One goroutine owns it.
type hierarchy struct {
	fd     int // the root, owned by the caller
	tree   *anchor.Tree
	top    *dir
	byID   map[uint64]*dir
	byUnit map[string]*dir // by shape
	alike  map[alike]*anchor.Match
	buf    []byte

	changed        bool   // since a snapshot was taken
	renamed        bool   // so did names, and nothing else
	added, removed []*dir // since a look began
	err            error  // the first of a look that was not a vanished directory
	failures       int    // how many there were
	reads          int    // of marks, since a look began
	unread         []*dir // whose marks are left to readMarks
	opened         []*dir // were closed when last looked at, since a look began
}

// marksAtOnce is how many marks a look reads by itself. To read one takes several
// times as long as to find its directory, and who belongs to which group does not
// depend on it: the rest follow.
const marksAtOnce = 1024

func newHierarchy(fd int, tree *anchor.Tree) (*hierarchy, error) {
	id, delegated, err := inode(fd)
	if err != nil {
		return nil, fmt.Errorf("cgroup root: %w", err)
	}
	h := &hierarchy{
		fd: fd, tree: tree, byID: map[uint64]*dir{}, byUnit: map[string]*dir{},
		alike: map[alike]*anchor.Match{}, buf: make([]byte, 32<<10),
	}
	h.top = &dir{id: id, path: "/", match: h.share(tree.Root()), known: true, plain: true, delegated: delegated}
	h.top.below = h.top.match.Group != ""
	h.top.walk = h.top.below || h.top.match.Node != 0
	h.byID[id] = h.top
	h.changed = true
	return h, nil
}

// alike is what tells matches of one tree apart: what else a pattern wins or
// loses against follows from these.
type alike struct {
	node          anchor.Node
	group         string
	anchor, split bool
	pattern       string
}

// share keeps one of all matches that are alike: most directories are like many
// others. Those that name further patterns are few, and stand for themselves.
func (h *hierarchy) share(m anchor.Match) *anchor.Match {
	if len(m.Same)+len(m.Lost) > 0 {
		return &m
	}
	key := alike{m.Node, m.Group, m.Anchor, m.Split, m.Pattern}
	if h.alike[key] == nil {
		h.alike[key] = &m
	}
	return h.alike[key]
}

// child says how a directory named name below d is watched; nil if it is not.
func (h *hierarchy) child(d *dir, name string) *dir {
	c := &dir{parent: d}
	var match anchor.Match
	if d.known && d.match.Node != 0 {
		match, c.known = h.tree.Child(d.match.Node, name)
	}
	c.match = h.share(match)
	slice := strings.HasSuffix(name, ".slice")
	unit := strings.HasSuffix(name, ".scope") || strings.HasSuffix(name, ".service")
	switch {
	case c.match.Anchor:
		c.below, c.leaf = true, unit
	case c.match.Split:
		c.below, c.leaf, c.member = true, !slice, !slice
	default:
		c.below = d.below
		c.leaf = d.leaf || d.below && !slice
		c.member = d.below && !d.leaf && !slice
	}
	c.walk = c.match.Node != 0 || c.below && !c.leaf
	if !c.known && !c.member && !c.walk {
		return nil
	}
	c.path = strings.TrimSuffix(d.path, "/") + "/" + name
	c.name = c.path[len(c.path)-len(name):] // one string in memory
	if d.plain {
		unit, slice := unitShape(c.path, name)
		c.shaped, c.plain = unit != "", slice
	}
	return c
}

// walkAll looks at every directory that is watched.
func (h *hierarchy) walkAll() {
	if !h.top.walk {
		return
	}
	fd, err := openDir(h.fd, ".")
	if err == nil {
		err = h.scan(fd, h.top, true, 0)
		_ = unix.Close(fd) // read-only: nothing to lose
	}
	if err != nil {
		h.fail(h.top, err)
	}
}

// look looks at one directory, and at what is new in it. If it is gone or
// another one is in its place, its parent is looked at.
func (h *hierarchy) look(d *dir) {
	for ; d != nil; d = d.parent {
		if h.byID[d.id] != d {
			continue // dropped meanwhile
		}
		if !d.walk {
			return
		}
		level := depth(d)
		if beyond(d, level) {
			return // as it was found
		}
		fd, err := h.open(d)
		if err == nil {
			err = h.scan(fd, d, false, level)
			_ = unix.Close(fd)
		}
		switch {
		case err == nil:
			return
		case gone(err) && d != h.top:
			// the parent's listing says what is there instead
		case d != h.top && h.closes(h.fd, d.path[1:], d, err):
			h.shut(d)
			return
		default:
			h.fail(d, err)
			return
		}
	}
}

// open opens d by its path; a directory of another id there means that d is gone.
func (h *hierarchy) open(d *dir) (int, error) {
	rel := "."
	if d != h.top {
		rel = d.path[1:]
	}
	fd, err := openDir(h.fd, rel)
	if err != nil {
		return -1, err
	}
	id, delegated, err := inode(fd)
	if err == nil && id != d.id {
		err = unix.ENOENT
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	h.delegate(d, delegated)
	return fd, nil
}

func depth(d *dir) int {
	n := 0
	for ; d.parent != nil; d = d.parent {
		n++
	}
	return n
}

// scan makes d's children what fd, d's directory, holds. Deep: those that stay
// are scanned too.
func (h *hierarchy) scan(fd int, d *dir, deep bool, level int) error {
	entries, err := readDirs(fd, h.buf)
	if err != nil {
		return err
	}
	h.reopen(d)
	old := d.children
	var kept []*dir
	for _, e := range entries {
		for len(old) > 0 && old[0].name < e.name {
			h.drop(old[0])
			old = old[1:]
		}
		var had *dir
		if len(old) > 0 && old[0].name == e.name {
			had, old = old[0], old[1:]
		}
		if had != nil && had.id == e.ino && (!deep || !had.walk) {
			kept = append(kept, had)
			continue
		}
		if now := h.visit(fd, d, e, had, level+1); now != nil {
			kept = append(kept, now)
		}
	}
	for _, o := range old {
		h.drop(o)
	}
	d.children = kept
	return nil
}

// fewChildren are looked up by their names faster than in a list, in which every
// control file stands as well.
const fewChildren = 8

// same reports whether a directory below at, its parent's, holds what it held. A cgroup
// directory has two links more than it has directories in it; if these are as many as
// are known, and each of those is still there, there are no others.
func (h *hierarchy) same(at int, d *dir) bool {
	if d.closed || len(d.children) > fewChildren || slices.ContainsFunc(d.children, func(c *dir) bool { return c.walk }) {
		return false
	}
	var st unix.Stat_t
	err := unix.Fstatat(at, d.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || st.Ino != d.id || delegates(&st) != d.delegated || int(st.Nlink) != 2+len(d.children) {
		return false
	}
	for _, c := range d.children {
		below := c.path[len(d.path)-len(d.name):] // d's name and c's
		if err := unix.Fstatat(at, below, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Ino != c.id {
			return false
		}
	}
	return true
}

// visit opens an entry of d and returns what is watched of it: had, if it is
// still the same directory, else a new dir, nil if there is nothing to watch.
func (h *hierarchy) visit(at int, d *dir, e entry, had *dir, level int) *dir {
	now := had
	if now == nil || now.id != e.ino {
		if now = h.child(d, e.name); now == nil {
			if had != nil {
				h.drop(had)
			}
			return nil
		}
	}
	if !now.walk { // nothing in it matters, and the listing says what its id is
		h.take(at, now, e.ino, had)
		return now
	}
	if now == had && h.same(at, now) {
		return now
	}
	if beyond(now, level) {
		h.take(at, now, e.ino, had)
		h.shut(now)
		return now
	}
	fd, err := openDir(at, e.name)
	if err != nil && h.closes(at, e.name, now, err) {
		h.take(at, now, e.ino, had)
		h.shut(now)
		return now
	}
	if err != nil {
		if !gone(err) {
			h.fail(now, err)
			return had // as it was last seen
		}
		if had != nil {
			h.drop(had)
		}
		return nil
	}
	defer unix.Close(fd)
	id, delegated, err := inode(fd)
	if err != nil {
		h.fail(now, err)
		return had
	}
	if had != nil && had.id != id {
		h.drop(had)
		if now == had { // replaced after it was listed
			now = h.child(d, e.name)
		}
		had = nil
	}
	if now != had {
		now.id = id
		h.add(now, at)
	}
	h.delegate(now, delegated)
	if err := h.scan(fd, now, true, level); gone(err) {
		h.drop(now)
		return nil
	} else if err != nil {
		h.fail(now, err)
	}
	return now
}

// take puts now, of this id, in the place of what was there, unless it is the same.
func (h *hierarchy) take(at int, now *dir, id uint64, had *dir) {
	if now == had {
		return
	}
	if had != nil {
		h.drop(had)
	}
	now.id = id
	h.add(now, at)
}

// add takes in a directory below at, its parent's.
func (h *hierarchy) add(d *dir, at int) {
	h.byID[d.id] = d
	h.added = append(h.added, d)
	h.changed = true
	if !d.shaped {
		return
	}
	h.byUnit[d.shape()] = d
	if h.reads++; h.reads > marksAtOnce {
		d.unread = true
		h.unread = append(h.unread, d)
		return
	}
	if inv := readInvocation(at, d.name); inv != "" {
		d.marked, d.about = true, &about{invocation: inv}
	}
}

func (h *hierarchy) drop(d *dir) {
	for _, c := range d.children {
		h.drop(c)
	}
	if h.byID[d.id] == d {
		delete(h.byID, d.id)
	}
	if unit := d.shape(); h.byUnit[unit] == d {
		delete(h.byUnit, unit)
	}
	h.removed = append(h.removed, d)
	h.changed = true
}

func (h *hierarchy) fail(d *dir, err error) {
	h.failures++
	if h.err == nil {
		h.err = fmt.Errorf("cgroup %q: %w", d.path, err)
	}
}

// nearest is the deepest directory that is watched on the way to a slice, whose
// path follows from its name; nil where another kind of unit is meant, or nothing
// below that directory matters.
func (h *hierarchy) nearest(unit string) *dir {
	if !strings.HasSuffix(unit, ".slice") {
		return nil
	}
	path, err := anchor.FromUnit(unit)
	if err != nil {
		return nil
	}
	at := h.top
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		i, ok := slices.BinarySearchFunc(at.children, name, func(d *dir, name string) int { return strings.Compare(d.name, name) })
		if !ok {
			break
		}
		at = at.children[i]
	}
	if !at.walk {
		return nil
	}
	return at
}

// begin starts a look: what it finds is in added, removed and err.
func (h *hierarchy) begin() {
	clear(h.added)
	clear(h.removed)
	clear(h.opened)
	h.added, h.removed, h.opened, h.err, h.failures, h.reads = h.added[:0], h.removed[:0], h.opened[:0], nil, 0, 0
}

// rebuild is a hierarchy for another tree, whose names need not be asked again.
func (h *hierarchy) rebuild(tree *anchor.Tree) (*hierarchy, error) {
	n, err := newHierarchy(h.fd, tree)
	if err != nil {
		return nil, err
	}
	n.walkAll()
	for id, d := range n.byID {
		if was := h.byID[id]; was != nil && was.shape() == d.shape() && (d.unread || was.about.invoked() == d.about.invoked()) {
			d.marked, d.about = was.marked, was.about
		}
	}
	return n, nil
}
