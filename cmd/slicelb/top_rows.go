package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
)

// topKind is what the lines of a screen are about.
type topKind string

const (
	topVIPs     topKind = "vips"
	topGroups   topKind = "groups"
	topBackends topKind = "backends"
)

// topScreen is what is looked at: everything of a kind, or what belongs to a VIP
// or a group.
type topScreen struct {
	kind       topKind
	vip, group string // "" = all
}

// title counts what the rows are about; the row of no VIP is what networks were denied.
func (s topScreen) title(rows []topRow) string {
	n := 0
	for i := range rows {
		n += btoi(rows[i].name != "")
	}
	title := prose.Plural(n, map[topKind]string{topVIPs: "VIP", topGroups: "group", topBackends: "backend"}[s.kind])
	if s.vip != "" {
		title += " of VIP " + s.vip
	}
	switch {
	case s.group == "":
	case s.kind == topBackends: // what one gets is not counted by group
		title += " for group " + prose.Foreign(s.group) + ", with everybody's calls"
	default:
		title += " of group " + prose.Foreign(s.group)
	}
	return title
}

// unknown stands for a number that is not known (yet).
const unknown = -1

// topRow is one line. Rates are a second.
type topRow struct {
	name, vip, group string // what it is about; name is the first column
	up, state        string
	connects         float64
	rejected         float64
	denied           float64
	passed           float64
	share            float64
	live             float64
	p50, p99         time.Duration // unknown: no connect was timed
}

// topRows is what two answers of the daemon say of a screen; before may be nil.
func topRows(before, after *api.Top, s topScreen) []topRow {
	r := topRates{after: after}
	if before != nil && after.At.After(before.At) {
		r.before, r.seconds = before, after.At.Sub(before.At).Seconds()
	}
	switch {
	case s.kind == topBackends:
		return r.backends(s)
	case s.kind == topGroups || s.group != "":
		return r.pairs(s)
	}
	return slices.DeleteFunc(r.vips(), func(row topRow) bool { return s.vip != "" && row.name != s.vip })
}

type topRates struct {
	before, after *api.Top
	seconds       float64 // 0: before is not known
}

// rate is what was counted in a second. A count that begins anew counts from 0.
func (r *topRates) rate(before, after uint64) float64 {
	if r.seconds == 0 {
		return unknown
	}
	if after < before {
		before = 0
	}
	return float64(after-before) / r.seconds
}

func (r *topRates) fill(row *topRow, before, after api.Counters) {
	row.connects = r.rate(before.Connects+before.Flows, after.Connects+after.Flows)
	row.rejected = r.rate(before.Rejected, after.Rejected)
	row.denied = r.rate(before.Denied, after.Denied)
	row.passed = r.rate(before.Passed, after.Passed)
}

func (r *topRates) vips() []topRow {
	was := map[string]*api.TopVIP{}
	if r.before != nil {
		for i := range r.before.VIPs {
			was[r.before.VIPs[i].Name] = &r.before.VIPs[i]
		}
	}
	var rows []topRow
	for _, v := range r.after.VIPs {
		row := topRow{name: v.Name, vip: v.Name, up: fmt.Sprintf("%d/%d", v.Up, v.Backends), live: float64(v.Live), p50: unknown, p99: unknown}
		b := was[v.Name]
		if b == nil {
			b = &api.TopVIP{}
		}
		r.fill(&row, b.Counters, v.Counters)
		if r.before != nil {
			row.p50, row.p99 = percentiles(b.Took, v.Took)
		}
		rows = append(rows, row)
	}
	return rows
}

// percentiles are the bounds below which half of the connects between two moments
// are, and 99 of a hundred.
func percentiles(before, after []api.TookCount) (p50, p99 time.Duration) {
	counts, total := make([]uint32, len(after)), uint64(0)
	for i := range after {
		counts[i] = after[i].Count
		if len(before) == len(after) {
			counts[i] -= before[i].Count // it wraps, and so does the difference
		}
		total += uint64(counts[i])
	}
	if total == 0 {
		return unknown, unknown
	}
	at := func(percent uint64) time.Duration {
		var sum uint64
		for i := range counts {
			if sum += uint64(counts[i]); sum*100 >= total*percent {
				return after[i].Below
			}
		}
		return 0
	}
	return at(50), at(99)
}

// pairs are groups, or the VIPs that one group called.
func (r *topRates) pairs(s topScreen) []topRow {
	type sums struct{ before, after api.Counters }
	all := map[string]*sums{}
	of := func(p *api.TopGroup) *sums {
		if s.vip != "" && p.VIP != s.vip || s.group != "" && p.Group != s.group {
			return nil
		}
		name := p.Group
		if s.kind == topVIPs {
			name = p.VIP
		}
		if all[name] == nil {
			all[name] = &sums{}
		}
		return all[name]
	}
	add := func(to *api.Counters, c api.Counters) {
		to.Connects += c.Connects
		to.Flows += c.Flows
		to.Passed += c.Passed
		to.Rejected += c.Rejected
		to.Denied += c.Denied
	}
	for i := range r.after.Groups {
		if p := &r.after.Groups[i]; of(p) != nil {
			add(&of(p).after, p.Counters)
		}
	}
	if r.before != nil {
		for i := range r.before.Groups {
			if p := &r.before.Groups[i]; of(p) != nil {
				add(&of(p).before, p.Counters)
			}
		}
	}
	up := map[string]topRow{}
	if s.kind == topVIPs {
		for _, row := range r.vips() {
			up[row.name] = row
		}
	}
	var rows []topRow
	for name, c := range all {
		row := topRow{name: name, live: unknown, p50: unknown, p99: unknown}
		if s.kind == topVIPs {
			row.vip, row.up = name, up[name].up
		} else {
			row.group = name
		}
		r.fill(&row, c.before, c.after)
		rows = append(rows, row)
	}
	return rows
}

func (r *topRates) backends(s topScreen) []topRow {
	type key struct{ vip, group, address string }
	was := map[key]api.Counters{}
	if r.before != nil {
		for _, b := range r.before.Backends {
			was[key{b.VIP, b.Group, b.Address}] = b.Counters
		}
	}
	var rows []topRow
	for _, b := range r.after.Backends {
		if s.vip != "" && b.VIP != s.vip || s.group != "" && b.Group != "" && b.Group != s.group {
			continue
		}
		row := topRow{name: b.Address, vip: b.VIP, group: b.Group, state: b.State, share: 100 * b.Share, live: float64(b.Live), p50: unknown, p99: unknown}
		r.fill(&row, was[key{b.VIP, b.Group, b.Address}], b.Counters)
		rows = append(rows, row)
	}
	return rows
}

// keepTop leaves the rows that have the text in one of their names.
func keepTop(rows []topRow, filter string) []topRow {
	if filter == "" {
		return rows
	}
	return slices.DeleteFunc(rows, func(r topRow) bool {
		return !strings.Contains(r.name, filter) && !strings.Contains(r.vip, filter) && !strings.Contains(r.group, filter) && !strings.Contains(r.state, filter)
	})
}
