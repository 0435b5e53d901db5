package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slicelb/slicelb/internal/prose"
)

// topColumn is one column: its text, and what it is sorted by.
type topColumn struct {
	name  string
	width int
	text  func(*topRow) string
	order func(a, b *topRow) int // numbers: the greater comes first
}

func latencyColumn(name string, get func(*topRow) time.Duration) topColumn {
	return topColumn{name, 7, func(r *topRow) string {
		switch d := get(r); {
		case d == unknown:
			return "-"
		case d == 0:
			return ">0.5s"
		case d < time.Millisecond:
			return fmt.Sprintf("<%dus", d.Microseconds())
		default:
			return fmt.Sprintf("<%dms", d.Milliseconds())
		}
	}, func(a, b *topRow) int {
		at := func(r *topRow) time.Duration {
			if d := get(r); d != 0 {
				return d
			}
			return time.Hour
		}
		return cmp.Compare(at(b), at(a))
	}}
}

func textColumn(name string, width int, get func(*topRow) string) topColumn {
	return topColumn{name, width, func(r *topRow) string { return cmp.Or(prose.Foreign(get(r)), "-") },
		func(a, b *topRow) int { return strings.Compare(get(a), get(b)) }}
}

func numberColumn(name string, width int, format string, get func(*topRow) float64) topColumn {
	return topColumn{name, width, func(r *topRow) string {
		if get(r) < 0 {
			return "-"
		}
		return fmt.Sprintf(format, get(r))
	}, func(a, b *topRow) int { return cmp.Compare(get(b), get(a)) }}
}

// topColumns are a screen's; the first takes the room that the others leave.
func topColumns(kind topKind) []topColumn {
	connects := numberColumn("CONN/S", 9, "%.1f", func(r *topRow) float64 { return r.connects })
	live := numberColumn("LIVE", 7, "%.0f", func(r *topRow) float64 { return r.live })
	rejected := numberColumn("REJ/S", 8, "%.1f", func(r *topRow) float64 { return r.rejected })
	denied := numberColumn("DENY/S", 8, "%.1f", func(r *topRow) float64 { return r.denied })
	passed := numberColumn("PASS/S", 8, "%.1f", func(r *topRow) float64 { return r.passed })
	name := func(title string) topColumn {
		return textColumn(title, 0, func(r *topRow) string { return r.name })
	}
	switch kind {
	case topGroups:
		return []topColumn{name("GROUP"), connects, rejected, denied, passed}
	case topBackends:
		return []topColumn{name("BACKEND"), connects, live,
			numberColumn("SHARE", 6, "%.0f%%", func(r *topRow) float64 { return r.share }),
			textColumn("STATE", 8, func(r *topRow) string { return r.state }),
			textColumn("VIP", 12, func(r *topRow) string { return r.vip }),
			textColumn("FOR", 8, func(r *topRow) string { return r.group })}
	}
	return []topColumn{name("VIP"), textColumn("UP", 6, func(r *topRow) string { return r.up }), connects, live, rejected, denied, passed,
		latencyColumn("P50", func(r *topRow) time.Duration { return r.p50 }),
		latencyColumn("P99", func(r *topRow) time.Duration { return r.p99 })}
}

// columnAt is where a column stands, or where there is none of that name, the one
// that every screen has.
func columnAt(columns []topColumn, name string) int {
	named := func(name string) int {
		return slices.IndexFunc(columns, func(c topColumn) bool { return c.name == name })
	}
	if i := named(name); i >= 0 {
		return i
	}
	return named("CONN/S")
}

// sortTop orders rows by a column, and by name where that says nothing.
func sortTop(rows []topRow, columns []topColumn, by string, reverse bool) {
	i := columnAt(columns, by)
	slices.SortFunc(rows, func(a, b topRow) int {
		n := columns[i].order(&a, &b)
		if reverse {
			n = -n
		}
		return cmp.Or(n, strings.Compare(a.name, b.name), strings.Compare(a.vip, b.vip), strings.Compare(a.group, b.group))
	})
}
