package unitwatch

import (
	"slices"
	"strings"
)

// unitNames are patterns of units' names, so that one name is found among many.
type unitNames struct {
	plain map[string]struct{} // without "*"
	globs map[string][]string // by what stands before the first "*"
	heads []int               // lengths of those, rising

	// broad are patterns that name all that these do, and perhaps more: systemd
	// compares each that it is asked for with each of its units.
	broad []string
}

func newUnitNames(patterns []string) unitNames {
	n := unitNames{plain: map[string]struct{}{}, globs: map[string][]string{}, broad: patterns}
	var types []string
	for _, p := range patterns {
		head, _, glob := strings.Cut(p, "*")
		if !glob {
			n.plain[p] = struct{}{}
		} else {
			n.globs[head] = append(n.globs[head], p)
			if !slices.Contains(n.heads, len(head)) {
				n.heads = append(n.heads, len(head))
			}
		}
		if t := "*" + p[strings.LastIndexByte(p, '.')+1:]; !slices.Contains(types, t) {
			types = append(types, t)
		}
	}
	slices.Sort(n.heads)
	if len(patterns) > maxNames && len(types) < len(patterns) {
		n.broad = types
	}
	return n
}

// match reports whether one of the patterns names the unit.
func (n *unitNames) match(unit string) bool {
	if _, ok := n.plain[unit]; ok {
		return true
	}
	for _, l := range n.heads {
		if l > len(unit) {
			return false
		}
		if slices.ContainsFunc(n.globs[unit[:l]], func(p string) bool { return MatchUnit(p, unit) }) {
			return true
		}
	}
	return false
}
