package config

import (
	"bytes"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

// fileText is the text of one file. It outlives the decoded form, so that checks
// across files can still show lines.
type fileText struct {
	name  string
	order int // in load order
	data  []byte
	lines []int // offset of each line's first byte, made at first use

	// The place that was last asked for: lines may be as long as files, and
	// places are mostly asked for in order.
	lastOff, lastLine, lastColumn int
}

// span is a range of bytes of a file; one without a file is nowhere.
type span struct {
	src      *fileText
	off, end int
}

// line returns the number of the line (from 0) that holds the byte at off.
func (s *fileText) line(off int) int {
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
func (s *fileText) text(line int) []byte {
	b := s.data[s.lines[line]:]
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i]
	}
	return bytes.TrimSuffix(b, []byte("\r"))
}

func (p span) position() Position {
	s := p.src
	if s == nil {
		return Position{}
	}
	line := s.line(p.off)
	from, column := s.lines[line], 1
	if s.lastColumn > 0 && s.lastLine == line && s.lastOff <= p.off {
		from, column = s.lastOff, s.lastColumn
	}
	column += utf8.RuneCount(s.data[from:p.off])
	s.lastOff, s.lastLine, s.lastColumn = p.off, line, column
	return Position{File: s.name, Line: line + 1, Column: column}
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
	first := min(p.off-p.src.lines[line], len(text))
	last := max(first, min(p.end-p.src.lines[line], len(text)))
	start, end := 0, len(text)
	if utf8.RuneCount(text[:min(len(text), 4*(maxShown+1))]) > maxShown {
		start, end = window(text, first)
	}
	out.lead = out.Pos.Column - 1 - utf8.RuneCount(text[start:first])
	out.Span = max(1, utf8.RuneCount(text[first:min(last, end)]))

	shown := []rune(string(text[start:end]))
	if end < len(text) {
		shown[len(shown)-1] = '…'
	}
	if start > 0 {
		shown[0] = '…'
	}
	out.SourceLine = printable(string(shown))
	return out
}

// window is the part of a long line that is shown for a place in it.
func window(text []byte, at int) (start, end int) {
	start = at
	for range leadShown {
		_, n := utf8.DecodeLastRune(text[:start])
		start -= n
	}
	end = start
	for range maxShown {
		_, n := utf8.DecodeRune(text[end:])
		end += n
	}
	return start, end
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
