package bpf

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// NamedFD is an object as a descriptor store knows it.
type NamedFD struct {
	Name string
	FD   int
	Poll bool // false: the store must not watch it for hang-up (FDPOLL=0)
}

// layout is SLB_LAYOUT of api.h: part of every stored name, since a set of
// another layout can be neither written nor read.
const layout = 1

// storedName is how an object is called in a store:
//
//	slb1-000000f3a0c1d2e4-map-cells
//	slb1-000000f3a0c1d2e4-prog-slb_connect4-117
//	slb1-000000f3a0c1d2e4-link-slb_connect4-42
//
// that is the layout, the set, the kind, the object, and for what is replaced
// within a set, the kernel's id of it: the new one is stored under a name of its
// own before the old one is removed. Ids and sets grow with time.
type storedName struct {
	layout string
	set    string
	kind   string // map, prog or link
	object string
	id     uint32 // 0 for a map
}

const (
	kindMap     = "map"
	kindProgram = "prog"
	kindLink    = "link"
)

func (n storedName) String() string {
	s := strings.Join([]string{n.layout, n.set, n.kind, n.object}, "-")
	if n.kind != kindMap {
		s += fmt.Sprintf("-%d", n.id)
	}
	return s
}

func currentLayout() string { return fmt.Sprintf("slb%d", layout) }

// newSetName grows with time and starts anew with the machine, as a store does.
func newSetName() string {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // cannot fail for this clock
	return fmt.Sprintf("%016x", ts.Nano())
}

// parseStoredName knows whether a name is one of ours, whatever its layout.
func parseStoredName(s string) (storedName, bool) {
	parts := strings.Split(s, "-")
	if len(parts) < 4 || !strings.HasPrefix(parts[0], "slb") || len(parts[1]) != 16 {
		return storedName{}, false
	}
	n := storedName{layout: parts[0], set: parts[1], kind: parts[2], object: parts[3]}
	switch n.kind {
	case kindMap:
		return n, len(parts) == 4
	case kindProgram, kindLink:
		if len(parts) != 5 {
			return n, false
		}
		_, err := fmt.Sscanf(parts[4], "%d", &n.id)
		return n, err == nil && n.String() == s
	}
	return n, false
}

// stored says whether a map must outlive the process: constants and scratch
// space need not.
func stored(table string) bool {
	return table != slicelbMapScratch && !strings.HasPrefix(table, ".rodata")
}

// FDs lists what a descriptor store should hold, sorted by name, the maps first
// (a set without its maps is of no use). The descriptors stay the Datapath's. A
// name that the store holds and FDs does not is to be removed, after the new
// ones are stored.
func (d *Datapath) FDs() []NamedFD {
	if d.acquire() != nil {
		return nil
	}
	defer d.release()
	d.attach.Lock()
	defer d.attach.Unlock()

	var maps, rest []NamedFD
	add := func(to *[]NamedFD, n storedName, fd int) {
		n.layout, n.set = currentLayout(), d.set
		*to = append(*to, NamedFD{Name: n.String(), FD: fd})
	}
	for name, m := range d.maps {
		if stored(name) {
			add(&maps, storedName{kind: kindMap, object: name}, m.FD())
		}
	}
	for name, p := range d.programs {
		if info, err := p.Info(); err == nil {
			id, _ := info.ID()
			add(&rest, storedName{kind: kindProgram, object: name, id: uint32(id)}, p.FD())
		}
	}
	for name, l := range d.links {
		add(&rest, storedName{kind: kindLink, object: name, id: uint32(l.id)}, l.fd())
	}
	byName := func(a, b NamedFD) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(maps, byName)
	slices.SortFunc(rest, byName)
	return append(maps, rest...)
}
