package discover

import (
	"strings"

	"github.com/slicelb/slicelb/config"
)

// Closest is the name in a list that decides over a unit, of those that match it and
// have an address of that family: the unit's own before one with "*", then the one
// with the longer text in front of its first "*", then the first. "" = none matches.
func Closest(list []config.UnitBackend, family uint8, unit string, match func(pattern, unit string) bool) string {
	best := ""
	for i := range list {
		if w := &list[i]; w.Family == family && closer(w.Unit, best) && match(w.Unit, unit) {
			best = w.Unit
		}
	}
	return best
}

// closer reports whether name says more of the units that it matches than other, which
// is "" where there is none.
func closer(name, other string) bool {
	head, _, glob := strings.Cut(name, "*")
	otherHead, _, otherGlob := strings.Cut(other, "*")
	switch {
	case other == "":
		return true
	case glob != otherGlob:
		return otherGlob
	}
	return glob && len(head) > len(otherHead)
}

// unitIn is a unit in one family.
type unitIn struct {
	unit   string
	family uint8
}

// closest is Closest for every unit that one of a list matches; nil where there is one
// name alone.
func (x *expansion) closest(list []config.UnitBackend) map[unitIn]string {
	if len(list) == 1 {
		return nil
	}
	out := map[unitIn]string{}
	for i := range list {
		w := &list[i]
		for _, u := range x.named(w.Unit) {
			if at := (unitIn{u.Name, w.Family}); closer(w.Unit, out[at]) {
				out[at] = w.Unit
			}
		}
	}
	return out
}
