package lb

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/slicelb/slicelb/bpf"
)

// WriteDump writes what the maps hold, by name and in a stable order. What is
// in brackets is where it lies: indexes, generations and slots, which say
// nothing about what a call gets. What nothing names, and what waits to be
// freed, comes last.
func WriteDump(w io.Writer, d *bpf.Dump) error {
	p := dumper{d: d, cells: map[uint32]bool{}, backends: map[uint32]bool{}}
	p.groups()
	p.policy()
	p.vips()
	p.tree()
	p.rest()
	_, err := io.WriteString(w, p.out.String())
	return err
}

type dumper struct {
	d        *bpf.Dump
	out      strings.Builder
	cells    map[uint32]bool // already written
	backends map[uint32]bool
}

func (p *dumper) line(format string, args ...any) { fmt.Fprintf(&p.out, format+"\n", args...) }

func (p *dumper) group(index uint32) string {
	if g := p.d.Groups[index]; g.Name != "" {
		return g.Name
	}
	return fmt.Sprintf("?[%d]", index)
}

func (p *dumper) groups() {
	for _, i := range sortedBy(p.d.Groups, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(btoi(a != 0), btoi(b != 0)), cmp.Compare(p.d.Groups[a].Name, p.d.Groups[b].Name),
			cmp.Compare(a, b))
	}) {
		g, flags := p.d.Groups[i], ""
		if !g.Translate {
			flags += " no-translate"
		}
		if g.Deny {
			flags += " deny"
		}
		if g.Strict {
			flags += " strict"
		}
		if g.Stale {
			flags += " stale"
		}
		p.line("group %s%s [%d]", g.Name, flags, i)
	}
}

func (p *dumper) vips() {
	frontends := map[uint32][]bpf.FrontendKey{}
	for k, i := range p.d.Frontends {
		cell := p.d.FrontendRefs[i].Cell
		frontends[cell] = append(frontends[cell], k)
	}
	backends := map[uint32][]uint32{}
	for i, c := range p.d.BackendCells {
		if c.State != bpf.BackendFree {
			cell := p.d.Backends[i].Cell
			backends[cell] = append(backends[cell], i)
		}
	}
	views := map[uint32][]bpf.ViewKey{}
	for k := range p.d.Views {
		views[k.Cell] = append(views[k.Cell], k)
	}
	infos := p.d.CellInfos
	for _, cell := range sortedBy(infos, func(a, b uint32) int {
		return cmp.Or(cmp.Compare(infos[a].VIP, infos[b].VIP), cmp.Compare(infos[a].Family, infos[b].Family),
			cmp.Compare(a, b))
	}) {
		info := infos[cell]
		if info.Group != "" {
			continue
		}
		p.cells[cell] = true
		p.line("vip %s IPv%d [cell %d gen %d]", info.VIP, info.Family, cell, p.d.Cells[cell].Gen)
		slices.SortFunc(frontends[cell], compareFrontends)
		for _, k := range frontends[cell] {
			i := p.d.Frontends[k]
			p.line("  frontend %s [%d gen %d]", k, i, p.d.FrontendRefs[i].Gen)
		}
		slices.SortFunc(backends[cell], func(a, b uint32) int {
			return cmp.Or(p.d.Backends[a].Addr.Compare(p.d.Backends[b].Addr), cmp.Compare(a, b))
		})
		for _, i := range backends[cell] {
			p.backends[i] = true
			p.line("  backend %s %s [%d gen %d]", p.d.Backends[i].Addr, p.d.BackendCells[i].State, i, p.d.Backends[i].Gen)
		}
		p.line("  default %s", p.outcome(p.d.Cells[cell]))
		slices.SortFunc(views[cell], func(a, b bpf.ViewKey) int {
			return cmp.Or(cmp.Compare(p.group(a.Group), p.group(b.Group)), cmp.Compare(a.Group, b.Group))
		})
		for _, k := range views[cell] {
			i := p.d.Views[k]
			p.cells[i] = true
			p.line("  view %s %s [cell %d gen %d]", p.group(k.Group), p.outcome(p.d.Cells[i]), i, p.d.Cells[i].Gen)
		}
	}
}

// outcome is a cell's answer: the slots of each backend, in their order.
func (p *dumper) outcome(c bpf.Cell) string {
	out := c.Action.String()
	if c.Selective {
		out += " selective"
	}
	if c.Action != bpf.Balance {
		return out
	}
	out += c.Steering()
	if c.Algorithm == bpf.Maglev {
		return out + p.table(c)
	}
	slots := p.d.Slots[c.Base]
	for i := 0; i < len(slots); {
		n := 1
		for i+n < len(slots) && slots[i+n] == slots[i] {
			n++
		}
		out += fmt.Sprintf(" %s=%d", p.d.Backends[bpf.SlotBackend(slots[i])].Addr, n)
		if w := bpf.SlotWeight(slots[i]); c.Algorithm == bpf.LeastConnections && w != uint32(n) {
			out += fmt.Sprintf("(%d)", w)
		}
		i += n
	}
	return out + fmt.Sprintf(" [slots %d+%d]", c.Base, c.Count)
}

// table is a Maglev table: how many places each backend has, by address, and a sum
// of their order.
func (p *dumper) table(c bpf.Cell) string {
	places := map[netip.AddrPort]int{}
	h := fnv.New32a()
	for _, s := range p.d.Slots[c.Base] {
		addr := p.d.Backends[bpf.SlotBackend(s)].Addr
		places[addr]++
		fmt.Fprintln(h, addr)
	}
	var out string
	for _, addr := range slices.SortedFunc(maps.Keys(places), netip.AddrPort.Compare) {
		out += fmt.Sprintf(" %s=%d", addr, places[addr])
	}
	return out + fmt.Sprintf(" order %08x [slots %d+%d]", h.Sum32(), c.Base, c.Count)
}

func (p *dumper) rule(r bpf.Rule) string {
	var parts []string
	if r.Group != 0 {
		parts = append(parts, "group="+p.group(r.Group))
	}
	if r.Node != 0 {
		parts = append(parts, fmt.Sprintf("node=%05x", r.Node))
	}
	if r.Split {
		parts = append(parts, "split")
	}
	if r.Counted {
		parts = append(parts, "counted")
	}
	if parts == nil {
		return "nothing"
	}
	return strings.Join(parts, " ")
}

func (p *dumper) tree() {
	for _, id := range slices.Sorted(maps.Keys(p.d.Cgroups)) {
		p.line("cgroup %d %s", id, p.rule(p.d.Cgroups[id]))
	}
	for _, k := range sortedBy(p.d.Expect, func(a, b bpf.ExpectKey) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Name, b.Name))
	}) {
		name := "any other name"
		if k.Name != "" {
			name = fmt.Sprintf("%q", k.Name)
		}
		p.line("expect %05x %s: %s", k.Node, name, p.rule(p.d.Expect[k]))
	}
	for _, k := range sortedBy(p.d.Patterns, func(a, b bpf.PatternKey) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Ordinal, b.Ordinal))
	}) {
		v := p.d.Patterns[k]
		p.line("expect %05x #%d %q*%q: %s", k.Node, k.Ordinal, v.Prefix, v.Suffix, p.rule(v.Rule))
	}
}

// rest is what hangs on nothing.
func (p *dumper) rest() {
	for _, i := range slices.Sorted(maps.Keys(p.d.Cells)) {
		if !p.cells[i] {
			p.line("unused cell %d: %s: %s", i, p.d.CellInfos[i], p.outcome(p.d.Cells[i]))
		}
	}
	for _, i := range slices.Sorted(maps.Keys(p.d.BackendCells)) {
		if p.d.BackendCells[i].State != bpf.BackendFree && !p.backends[i] {
			p.line("unused backend %d: %s: %s", i, p.d.Backends[i], p.d.BackendCells[i])
		}
	}
	for _, k := range sortedBy(p.d.Frontends, compareFrontends) {
		i := p.d.Frontends[k]
		if !p.cells[p.d.FrontendRefs[i].Cell] {
			p.line("lost frontend %s: index %d: %s", k, i, p.d.FrontendRefs[i])
		}
	}
	for _, k := range sortedBy(p.d.Views, func(a, b bpf.ViewKey) int {
		return cmp.Or(cmp.Compare(a.Cell, b.Cell), cmp.Compare(a.Group, b.Group))
	}) {
		if !p.cells[p.d.Views[k]] {
			p.line("lost view %s: cell %d", k, p.d.Views[k])
		}
	}
	named := map[uint32]bool{}
	for _, i := range p.d.Frontends {
		named[i] = true
	}
	for _, i := range slices.Sorted(maps.Keys(p.d.FrontendRefs)) {
		if ref := p.d.FrontendRefs[i]; ref.Cell != 0 && !named[i] {
			p.line("unused frontend word %d: %s", i, ref)
		}
	}
}

func sortedBy[K comparable, V any](m map[K]V, compare func(a, b K) int) []K {
	return slices.SortedFunc(maps.Keys(m), compare)
}
