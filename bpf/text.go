package bpf

import (
	"fmt"
	"strconv"
	"strings"
)

// How writes read. Goldens and errors hold these lines, so they stay as they
// are; names that come from elsewhere are quoted.

func (a Action) String() string {
	switch a {
	case None:
		return "none"
	case Balance:
		return "balance"
	case PassExcept:
		return "pass-except"
	case PassHidden:
		return "pass-hidden"
	case PassDown:
		return "pass-down"
	case RejectHidden:
		return "reject-hidden"
	case RejectDown:
		return "reject-down"
	}
	return "action-" + strconv.Itoa(int(a))
}

// String is the algorithm as the configuration has it.
func (a Algorithm) String() string {
	switch a {
	case Random:
		return "random"
	case LeastConnections:
		return "least-connections"
	case Maglev:
		return "maglev"
	}
	return "algorithm-" + strconv.Itoa(int(a))
}

func (s BackendState) String() string {
	switch s {
	case BackendFree:
		return "free"
	case BackendActive:
		return "active"
	case BackendDraining:
		return "draining"
	case BackendDown:
		return "down"
	}
	return "state-" + strconv.FormatUint(uint64(s), 10)
}

// String is the address as a VIP's frontend is written in the configuration,
// with the protocol always named.
func (k FrontendKey) String() string { return k.Addr.String() + "/" + protocolName(k.Proto) }

func protocolName(p uint8) string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	}
	return strconv.Itoa(int(p))
}

func (r FrontendRef) String() string {
	s := fmt.Sprintf("cell=%d gen=%d", r.Cell, r.Gen)
	if r.Rest {
		s += " rest"
	}
	return s
}

func (c Cell) String() string {
	var b strings.Builder
	b.WriteString(c.Action.String())
	if c.Action == Balance || c.Count != 0 || c.Base != 0 {
		fmt.Fprintf(&b, " base=%d count=%d", c.Base, c.Count)
	}
	b.WriteString(c.Steering())
	if c.Selective {
		b.WriteString(" selective")
	}
	fmt.Fprintf(&b, " gen=%d", c.Gen)
	return b.String()
}

// Steering is what is not simply random about a cell, with a blank before it.
func (c Cell) Steering() string {
	var s string
	if c.Algorithm != Random {
		s = " " + c.Algorithm.String()
	}
	if c.Affinity > 0 {
		s += fmt.Sprintf(" affinity=%ds", c.Affinity)
	}
	if c.Strict {
		s += " strict"
	}
	return s
}

func (i CellInfo) String() string {
	if i.Family == 0 {
		return "free"
	}
	s := fmt.Sprintf("vip=%q family=%d", i.VIP, i.Family)
	if i.Group != "" {
		s += fmt.Sprintf(" group=%q of=%d", i.Group, i.Of)
	}
	return s
}

func (k ViewKey) String() string { return fmt.Sprintf("cell=%d group=%d", k.Cell, k.Group) }

func (b Backend) String() string { return fmt.Sprintf("%s gen=%d cell=%d", b.Addr, b.Gen, b.Cell) }

func (c BackendCell) String() string { return fmt.Sprintf("%s gen=%d", c.State, c.Gen) }

func (g Group) String() string {
	if g.Name == "" {
		return "free"
	}
	s := strconv.Quote(g.Name)
	if !g.Translate {
		s += " no-translate"
	}
	if g.Deny {
		s += " deny"
	}
	if g.Strict {
		s += " strict"
	}
	if g.Stale {
		s += " stale"
	}
	return s
}

func (r Rule) String() string {
	s := fmt.Sprintf("group=%d node=%#x", r.Group, r.Node)
	if r.Split {
		s += " split"
	}
	if r.Counted {
		s += " counted"
	}
	return s
}

func (k ExpectKey) String() string {
	if k.Name == "" {
		return fmt.Sprintf("node=%#x rest", k.Node)
	}
	return fmt.Sprintf("node=%#x %q", k.Node, k.Name)
}

func (k PatternKey) String() string { return fmt.Sprintf("node=%#x #%d", k.Node, k.Ordinal) }

func (p Pattern) String() string { return fmt.Sprintf("%q*%q %s", p.Prefix, p.Suffix, p.Rule) }

func (w PutFrontend) String() string { return fmt.Sprintf("put frontend %s index=%d", w.Key, w.Index) }
func (w DelFrontend) String() string { return "del frontend " + w.Key.String() }
func (w SetFrontendRef) String() string {
	return fmt.Sprintf("set frontend-ref %d %s", w.Index, w.Ref)
}
func (w SetCell) String() string     { return fmt.Sprintf("set cell %d %s", w.Index, w.Cell) }
func (w SetCellInfo) String() string { return fmt.Sprintf("set cell-info %d %s", w.Index, w.Info) }
func (w PutView) String() string     { return fmt.Sprintf("put view %s index=%d", w.Key, w.Cell) }
func (w DelView) String() string     { return "del view " + w.Key.String() }
func (w SetSlots) String() string {
	return fmt.Sprintf("set slots %d count=%d [%s]", w.Base, len(w.Slots), runs(w.Slots))
}
func (w SetBackend) String() string { return fmt.Sprintf("set backend %d %s", w.Index, w.Backend) }
func (w SetBackendCell) String() string {
	return fmt.Sprintf("set backend-cell %d %s", w.Index, w.Cell)
}
func (w SetGroup) String() string   { return fmt.Sprintf("set group %d %s", w.Index, w.Group) }
func (w PutCgroup) String() string  { return fmt.Sprintf("put cgroup %d %s", w.ID, w.Rule) }
func (w SetCgroup) String() string  { return fmt.Sprintf("set cgroup %d %s", w.ID, w.Rule) }
func (w DelCgroup) String() string  { return fmt.Sprintf("del cgroup %d", w.ID) }
func (w PutExpect) String() string  { return fmt.Sprintf("put expect %s %s", w.Key, w.Rule) }
func (w SetExpect) String() string  { return fmt.Sprintf("set expect %s %s", w.Key, w.Rule) }
func (w DelExpect) String() string  { return "del expect " + w.Key.String() }
func (w PutPattern) String() string { return fmt.Sprintf("put pattern %s %s", w.Key, w.Pattern) }
func (w SetPattern) String() string { return fmt.Sprintf("set pattern %s %s", w.Key, w.Rule) }
func (w DelPattern) String() string { return "del pattern " + w.Key.String() }

// runs writes slots as "7x3 8 9x2": a weighted set is mostly repeats; "7~3x3" says
// its weight too. What is longer than a line is cut; the count stands before it.
func runs(slots []uint32) string {
	const longest = 64
	var b strings.Builder
	for i, n := 0, 0; i < len(slots); n++ {
		if n == longest {
			b.WriteString(" ...")
			break
		}
		end := i + 1
		for end < len(slots) && slots[end] == slots[i] {
			end++
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strconv.FormatUint(uint64(SlotBackend(slots[i])), 10))
		if w := SlotWeight(slots[i]); w > 0 {
			fmt.Fprintf(&b, "~%d", w)
		}
		if end-i > 1 {
			fmt.Fprintf(&b, "x%d", end-i)
		}
		i = end
	}
	return b.String()
}
