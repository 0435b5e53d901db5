package unitwatch

import "strings"

// idLength is how many hexadecimal digits a container's id has, whatever made it.
const idLength = 64

// opaque reports whether a directory's name says nothing to a person: it holds a
// container's id, as libpod-ID.scope, docker-ID.scope and libpod-payload-ID do.
func opaque(name string) bool {
	run := 0
	for i := range len(name) {
		if c := name[i]; '0' <= c && c <= '9' || 'a' <= c && c <= 'f' {
			if run++; run >= idLength {
				return true
			}
			continue
		}
		run = 0
	}
	return false
}

// recognised is what a person calls a split child whose own name is opaque: its
// unit's description, where that is a name, or the unit that it lies in. "" where
// its own name is the best there is. It is other people's text.
func recognised(d *dir) string {
	if !opaque(d.name) {
		return ""
	}
	if s := d.about.described(); isName(s) {
		return s
	}
	for p := d.parent; p != nil && p.parent != nil; p = p.parent {
		unit := strings.HasSuffix(p.name, ".service") || strings.HasSuffix(p.name, ".scope")
		if unit && !opaque(p.name) {
			return p.name
		}
		if p.match.Group != "" {
			break // the anchor, or what lies above it
		}
	}
	return ""
}

// isName reports whether a text is one word, such as runtimes take for the name
// of a container.
func isName(s string) bool {
	if len(s) == 0 || len(s) > 63 || opaque(s) {
		return false
	}
	letters := 0
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
			letters++
		case '0' <= c && c <= '9':
		case i > 0 && strings.IndexByte("_.@:-", c) >= 0:
		default:
			return false
		}
	}
	return letters > 0
}
