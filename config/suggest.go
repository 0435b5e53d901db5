package config

import (
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
)

// suggest returns "did you mean …" for the nearest candidate, or "" where none
// is near.
func suggest(word string, candidates []string) string {
	if len(word) > 64 {
		return ""
	}
	limit := max(1, len(word)/3)
	best := ""
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		d := levenshtein.ComputeDistance(strings.ToLower(word), c)
		if swapped(word, c) {
			d = 1
		}
		if d <= limit && c != word && (best == "" || d < limit) {
			best, limit = c, d
		}
	}
	if best == "" {
		return ""
	}
	return "did you mean " + strconv.Quote(best) + "?"
}

// swapped reports whether b is a with two neighbours exchanged.
func swapped(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	return i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
}

// quote shows other people's text on one line of bounded length.
func quote(s string) string {
	const most = 100
	if len(s) > most {
		return strconv.Quote(strings.ToValidUTF8(s[:most], "")) + "…"
	}
	return strconv.Quote(s)
}
