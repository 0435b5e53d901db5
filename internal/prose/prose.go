// Package prose is how people are told things: other people's text so that it
// stays on its line, numbers with their nouns. Every package that makes lines for
// people may use it.
package prose

import (
	"fmt"
	"strconv"
	"strings"
)

// Foreign prints other people's text (names of units, cgroups, commands) so
// that it stays on its line and moves no cursor. What is plain stays as it is,
// to be copied.
func Foreign(s string) string {
	for _, r := range s {
		if r <= ' ' || r > '~' || r == '"' {
			return strconv.Quote(s)
		}
	}
	return s
}

// ForeignAll is Foreign of each.
func ForeignAll(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = Foreign(s)
	}
	return out
}

// brief is how much of a name fits on a line beside other things.
const brief = 200

// Brief is Foreign, of a very long name the beginning.
func Brief(s string) string {
	if len(s) <= brief {
		return Foreign(s)
	}
	return Foreign(s[:brief]) + "..."
}

// some is how many of a list fit on a screen beside other things.
const some = 10

// Some is ForeignAll in a line, of a long list the first and how many more there are.
func Some(list []string) string {
	if len(list) <= some {
		return strings.Join(ForeignAll(list), " ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(ForeignAll(list[:some]), " "), len(list)-some)
}

// OneLine prints a sentence that may hold other people's text: its spaces stay.
func OneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// Plural is a number of things, of which one is called one.
func Plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + one + "s"
}

// Times is how often something was.
func Times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return strconv.FormatUint(n, 10) + " times"
}
