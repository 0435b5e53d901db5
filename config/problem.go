package config

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/slicelb/slicelb/internal/prose"
)

// Severity says whether a problem refuses the configuration.
type Severity string

const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Problem is one thing that is wrong, and where. SourceLine is the line at Pos
// with everything unprintable replaced; of a very long line it is the part
// around Pos. Span is the number of runes meant, at least 1 where there is a
// SourceLine.
type Problem struct {
	Pos        Position `json:"position"`
	Severity   Severity `json:"severity"`
	Message    string   `json:"message"`
	Hint       string   `json:"hint,omitempty"`
	SourceLine string   `json:"source_line,omitempty"`
	Span       int      `json:"span,omitempty"`

	order int // of the file
	lead  int // runes cut from the line's start
}

// WriteTo writes the problem for people: one line, then the source line with
// carets below.
func (p Problem) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s\n", p.Pos, p.Severity, p.Message)
	switch {
	case p.SourceLine != "":
		fmt.Fprintf(&b, "%5d | %s\n", p.Pos.Line, p.SourceLine)
		b.WriteString("      | ")
		rest := p.SourceLine
		for i := p.lead; i < p.Pos.Column-1 && rest != ""; i++ {
			r, n := utf8.DecodeRuneInString(rest)
			if r == '\t' {
				b.WriteByte('\t')
			} else {
				b.WriteByte(' ')
			}
			rest = rest[n:]
		}
		b.WriteString(strings.Repeat("^", p.Span))
		if p.Hint != "" {
			b.WriteString(" " + p.Hint)
		}
		b.WriteByte('\n')
	case p.Hint != "":
		fmt.Fprintf(&b, "      | %s\n", p.Hint)
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

// Warnings are problems that do not refuse the configuration, sorted.
type Warnings []Problem

// WriteTo writes all of them for people.
func (ws Warnings) WriteTo(w io.Writer) (int64, error) { return writeAll(w, ws) }

// Error is everything that refuses a configuration, sorted by file in load
// order, then by place.
type Error struct {
	Problems []Problem
}

func (e *Error) Error() string {
	if len(e.Problems) == 0 {
		return "bad configuration"
	}
	p := e.Problems[0]
	text := fmt.Sprintf("%s: %s", p.Pos, p.Message)
	if n := len(e.Problems) - 1; n == 1 {
		text += " (and 1 more error)"
	} else if n > 1 {
		text += fmt.Sprintf(" (and %d more errors)", n)
	}
	return text
}

// WriteTo writes all problems for people.
func (e *Error) WriteTo(w io.Writer) (int64, error) { return writeAll(w, e.Problems) }

// Explain is all that is wrong, with the warnings where they belong, and how many
// errors there are.
func (e *Error) Explain(ws Warnings) string {
	return "bad configuration\n" + e.List(ws) + prose.Plural(len(e.Problems), "error")
}

// List is every error and every warning, in reading order.
func (e *Error) List(ws Warnings) string {
	all := append(append([]Problem{}, e.Problems...), ws...)
	Sort(all)
	var b strings.Builder
	_, _ = writeAll(&b, all) // a Builder takes everything
	return b.String()
}

// Sort puts problems of one Load, errors and warnings together, into the order
// in which people read them.
func Sort(ps []Problem) {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.order, b.order),
			strings.Compare(a.Pos.File, b.Pos.File),
			cmp.Compare(a.Pos.Line, b.Pos.Line),
			cmp.Compare(a.Pos.Column, b.Pos.Column),
			strings.Compare(a.Message, b.Message),
		)
	})
}

func writeAll(w io.Writer, ps []Problem) (int64, error) {
	var total int64
	for _, p := range ps {
		n, err := p.WriteTo(w)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}
