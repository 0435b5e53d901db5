package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// leastName is how narrow the first column may become before others give way.
const leastName = 12

// topLines are a table of so many cells' width: the head, then one line a row.
// Where it is too narrow columns are left out, from the right; names are cut at
// last. Width 0 is as wide as is needed.
func topLines(rows []topRow, columns []topColumn, width int) []string {
	widest := len(columns[0].name)
	for i := range rows {
		widest = max(widest, utf8.RuneCountInString(columns[0].text(&rows[i])))
	}
	need := func() int {
		n := 0
		for _, c := range columns[1:] {
			n += 1 + c.width
		}
		return n
	}
	if width > 0 {
		for len(columns) > 1 && need()+min(widest, leastName) > width {
			columns = columns[:len(columns)-1]
		}
		widest = min(widest, width-need())
	}
	widest = max(widest, 1)
	line := func(cell func(topColumn) string) string {
		var b strings.Builder
		b.WriteString(pad(cell(columns[0]), widest))
		for _, c := range columns[1:] {
			fmt.Fprintf(&b, " %*s", c.width, cut(cell(c), c.width))
		}
		return strings.TrimRight(b.String(), " ")
	}
	out := []string{line(func(c topColumn) string { return c.name })}
	for i := range rows {
		out = append(out, line(func(c topColumn) string { return c.text(&rows[i]) }))
	}
	return out
}

func pad(s string, width int) string {
	s = cut(s, width)
	return s + strings.Repeat(" ", width-utf8.RuneCountInString(s))
}

// cut leaves as many characters, the last one a mark that there were more.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	r := []rune(s)
	if width <= 1 {
		return string(r[:width])
	}
	return string(r[:width-1]) + "~"
}
