package anchor

import (
	"errors"
	"path"
	"strings"
)

// shape is how hard a component is to match.
type shape uint8

const (
	literal shape = iota
	oneStar
	mixed // several stars, "?" or a class: user space only
)

// component is one parsed path component. Its text is its identity.
type component struct {
	shape          shape
	name           string // of a literal, unescaped
	prefix, suffix string // of a oneStar, unescaped
	glob           string // for path.Match
}

func (c component) matches(name string) bool {
	switch c.shape {
	case literal:
		return c.name == name
	case oneStar:
		return len(name) >= len(c.prefix)+len(c.suffix) &&
			strings.HasPrefix(name, c.prefix) && strings.HasSuffix(name, c.suffix)
	default:
		ok, _ := path.Match(c.glob, name) // its syntax was checked when it was parsed
		return ok
	}
}

// escaped are the names of directories that a glob stands for though it does not match
// them: "mem*.slice" means memory.slice, too, whose directory is "_memory.slice".
func (c component) escaped() (names []string) {
	for _, unit := range clashing {
		if name := DirName(unit); c.matches(unit) && !c.matches(name) {
			names = append(names, name)
		}
	}
	return names
}

var errEmptyComponent = errors.New("empty component")

func parseComponent(text string) (component, error) {
	switch text {
	case "":
		return component{}, errEmptyComponent
	case ".", "..":
		return component{}, errors.New(`"." and ".." name no cgroup`)
	}
	if strings.ContainsAny(text, "\x00\n") {
		return component{}, errors.New("no cgroup's name has a newline or a NUL byte")
	}
	var (
		glob   strings.Builder
		parts  = []string{""} // literal text between the stars
		starry bool           // the last byte was a star
		c      component
	)
	literally := func(b byte) {
		if strings.IndexByte(`*?[\`, b) >= 0 {
			glob.WriteByte('\\')
		}
		glob.WriteByte(b)
		parts[len(parts)-1] += string([]byte{b})
	}
	for i := 0; i < len(text); i++ {
		star := false
		switch b := text[i]; b {
		case '\\':
			if !unitEscape(text[i:]) {
				i++
				if i == len(text) {
					return component{}, path.ErrBadPattern
				}
			}
			literally(text[i])
		case '*':
			star = true
			if !starry {
				glob.WriteByte(b)
				parts = append(parts, "")
			}
		case '?':
			glob.WriteByte(b)
			c.shape = mixed
		case '[':
			end := classEnd(text[i:])
			if end < 0 {
				return component{}, path.ErrBadPattern
			}
			glob.WriteString(text[i : i+end])
			i += end - 1
			c.shape = mixed
		default:
			literally(b)
		}
		starry = star
	}
	c.glob = glob.String()
	if _, err := path.Match(c.glob, ""); err != nil {
		return component{}, err
	}
	length := 0
	for _, p := range parts {
		length += len(p)
	}
	if length > MaxName {
		return component{}, errors.New("longer than 255 bytes")
	}
	switch {
	case c.shape == mixed || len(parts) > 2:
		c.shape = mixed
	case len(parts) == 2:
		c.shape, c.prefix, c.suffix = oneStar, parts[0], parts[1]
	default:
		c.name = parts[0]
	}
	return c, nil
}

// unitEscape reports whether s starts with one of systemd's escapes.
func unitEscape(s string) bool {
	return len(s) >= 4 && s[0] == '\\' && s[1] == 'x' && isHex(s[2]) && isHex(s[3])
}

func isHex(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' || 'A' <= b && b <= 'F'
}

// classEnd is the length of the class that s starts with, -1 if it has no end.
func classEnd(s string) int {
	i := 1
	if i < len(s) && s[i] == '^' {
		i++
	}
	for first := true; i < len(s); first = false {
		switch {
		case s[i] == '\\':
			i++
		case s[i] == ']' && !first:
			return i + 1
		}
		i++
	}
	return -1
}
