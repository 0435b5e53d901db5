package unitwatch

import (
	"strings"

	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// dir is a directory that is watched: one that the tree knows, a member, or a
// slice between an anchor and its members.
type dir struct {
	id       uint64
	name     string
	path     string
	parent   *dir
	children []*dir // those watched, sorted by name

	match  *anchor.Match // shared by those that are alike, never nil
	known  bool          // match is the tree's answer
	member bool
	walk   bool // what lies in it can matter
	below  bool // below an anchor, or one
	leaf   bool // a scope, a service or a bare member, or within one
	plain  bool // systemd's own path for this slice: what lies in it can be its units
	shaped bool // it is a unit's directory if it is systemd's
	marked bool // systemd's mark was seen, or systemd said so
	unread bool // systemd's mark was not looked for yet
	closed bool // not looked into: closed.go says why

	delegated bool // others than root may make directories in it; looked at where walk is

	about *about // nil: nothing is known
}

// about is what only systemd knows of a unit. It is immutable: snapshots share it.
type about struct {
	invocation  string // 32 hexadecimal digits, or "" while not known
	description string // other people's text
}

func (a *about) invoked() string {
	if a == nil {
		return ""
	}
	return a.invocation
}

func (a *about) described() string {
	if a == nil {
		return ""
	}
	return a.description
}

// foreign reports whether others than root may have made this directory.
func (d *dir) foreign() bool {
	return d.parent != nil && (d.parent.delegated || d.parent.foreign())
}

// shape is the unit that this directory is if it is systemd's; "" if it cannot be.
func (d *dir) shape() string {
	if !d.shaped {
		return ""
	}
	return anchor.UnitName(d.name)
}

// unit is the unit that this directory is known to be.
func (d *dir) unit() string {
	if !d.marked {
		return ""
	}
	return d.shape()
}

// unitShape is the name of the unit that systemd would keep in this directory,
// given that the parent is a slice of it, and whether that is a slice whose
// path is this one. "/nomad.slice/share.slice" is not.
func unitShape(path, dirName string) (unit string, slice bool) {
	unit = anchor.UnitName(dirName)
	switch suffix := unit[strings.LastIndexByte(unit, '.')+1:]; suffix {
	case "slice":
		if p, err := anchor.FromUnit(unit); err != nil || p != path {
			return "", false
		}
		return unit, true
	case "scope", "service", "socket", "mount", "swap":
		if !validUnit(unit) || anchor.DirName(unit) != dirName {
			return "", false
		}
		return unit, false
	}
	return "", false
}

// validUnit reports whether systemd could know a unit of this name.
func validUnit(name string) bool {
	if len(name) == 0 || len(name) > 255 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		case strings.IndexByte(`:-_.\@`, c) >= 0:
		default:
			return false
		}
	}
	return true
}
