package config

import (
	"bytes"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

// source is the text of one file. It outlives the decoded form, so that checks
// across files can still show lines.
type source struct {
	name  string
	order int // in load order
	data  []byte
	lines []int // offset of each line's first byte, made at first use
}

// span is a range of bytes of a source; off == end == 0 with a nil source means
// nowhere.
type span struct {
	src      *source
	off, end int
}

// line returns the number of the line (from 0) that holds the byte at off.
func (s *source) line(off int) int {
	if s.lines == nil {
		s.lines = append(s.lines, 0)
		for i, c := range s.data {
			if c == '\n' {
				s.lines = append(s.lines, i+1)
			}
		}
	}
	return sort.SearchInts(s.lines, off+1) - 1
}

// text returns the line without its end.
func (s *source) text(line int) []byte {
	b := s.data[s.lines[line]:]
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i]
	}
	return bytes.TrimSuffix(b, []byte("\r"))
}

func (p span) position() Position {
	if p.src == nil {
		return Position{}
	}
	line := p.src.line(p.off)
	before := p.src.data[p.src.lines[line]:p.off]
	return Position{File: p.src.name, Line: line + 1, Column: utf8.RuneCount(before) + 1}
}

// Lines are shown whole up to maxShown runes; of a longer one, a window that
// begins leadShown runes before the problem.
const (
	maxShown  = 160
	leadShown = 40
)

// problem shows the span's first line.
func (p span) problem(sev Severity, message, hint string) Problem {
	out := Problem{Severity: sev, Message: message, Hint: hint}
	if p.src == nil {
		return out
	}
	out.order = p.src.order
	out.Pos = p.position()

	line := p.src.line(p.off)
	text := p.src.text(line)
	first := p.off - p.src.lines[line]
	last := min(p.end-p.src.lines[line], len(text))
	out.Span = 1
	if first < last {
		out.Span = utf8.RuneCount(text[first:last])
	}

	runes := []rune(string(text))
	if len(runes) > maxShown {
		out.lead = max(0, out.Pos.Column-1-leadShown)
		runes = runes[out.lead:]
		if len(runes) > maxShown {
			runes = runes[:maxShown]
			runes[maxShown-1] = '…'
		}
		if out.lead > 0 {
			runes[0] = '…'
		}
		out.Span = max(1, min(out.Span, len(runes)-(out.Pos.Column-1-out.lead)))
	}
	out.SourceLine = printable(string(runes))
	return out
}

// printable makes other people's text safe for a terminal, rune for rune.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s)
}
