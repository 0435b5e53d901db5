package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/prose"
)

// Explain works the kernel's answer out from its maps: the same look-ups in the
// same order.
func (a answers) Explain(ctx context.Context, q api.Question) (*api.Explanation, error) {
	var key bpf.FrontendKey
	if q.Address != "" {
		var err error
		if key, err = parseFrontend(q.Address); err != nil {
			return nil, api.Errorf(api.BadRequest, "address %q: %v", q.Address, err)
		}
	}
	if !strings.HasPrefix(q.Cgroup, "/") || path.Clean(q.Cgroup) != q.Cgroup {
		return nil, api.Errorf(api.BadRequest, "cgroup %q: want an absolute path below the cgroup root", q.Cgroup)
	}
	v, err := a.readable(ctx)
	if err != nil {
		return nil, err
	}
	line, err := ancestry(v.status.DataPlane.CgroupRoot, q.Cgroup, q.Process, q.IDs)
	if err != nil {
		return nil, err
	}
	d, n, err := a.readMaps(v)
	if err != nil {
		return nil, err
	}
	c := callerOf(d, line, v.level, v.snap)
	c.elsewhere = q.Elsewhere
	c.under(d, v.source)
	var x *api.Explanation
	if q.Address == "" {
		x = c.explanation()
		x.VIPs = verdicts(d, c)
	} else {
		x = explain(d, n, key, c)
		if err := a.backendsOf(v, x); err != nil {
			return nil, err
		}
	}
	x.Address = q.Address
	return x, nil
}

var errFrontend = errors.New("want ADDRESS:PORT or [ADDRESS]:PORT, with /udp behind it for UDP")

// parseFrontend reads an address as the configuration has it.
func parseFrontend(text string) (bpf.FrontendKey, error) {
	k := bpf.FrontendKey{Proto: bpf.TCP}
	addr, proto, said := strings.Cut(text, "/")
	if said {
		switch proto {
		case "udp":
			k.Proto = bpf.UDP
		case "tcp":
		default:
			return k, errFrontend
		}
	}
	ap, err := parseAddrPort(addr)
	if err != nil || ap.Addr().Zone() != "" {
		return k, errFrontend
	}
	k.Addr = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	return k, nil
}

// parseAddrPort is netip's, without zeros in front of a port, which some read as octal.
func parseAddrPort(text string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddrPort(text)
	if err == nil && !strings.HasSuffix(text, ":"+strconv.Itoa(int(addr.Port()))) {
		err = fmt.Errorf("the port of %q begins with a zero", text)
	}
	return addr, err
}

// explain follows a call through the maps, as decide() in the programs does.
func explain(d *bpf.Dump, n *bpf.CounterSnapshot, key bpf.FrontendKey, c caller) *api.Explanation {
	x := c.explanation()
	group, who := c.group, prose.Foreign(c.name)
	step := func(look, format string, args ...any) {
		x.Steps = append(x.Steps, api.Step{Look: look, Found: fmt.Sprintf(format, args...)})
	}
	done := func(action, format string, args ...any) *api.Explanation {
		x.Action, x.Reason = action, fmt.Sprintf(format, args...)
		return x
	}

	if d.Groups[group].Strict {
		step("group "+who, "strict = true: it can make no sockets but those of TCP, UDP and ICMP echo")
	}
	if to, ok := settled(key); ok && c.policy != nil {
		step("address "+frontendText(key), "the one that the socket is bound to, else %s", to.Addr.Addr())
		key = to
	}
	at, unknown, frontend := frontendCell(d, key)
	cell, info := d.Cells[at], d.CellInfos[at]
	if frontend {
		x.VIP = info.VIP
		step("address "+frontendText(key), "VIP %s (IPv%d)", info.VIP, info.Family)
	} else {
		step("address "+frontendText(key), "no frontend")
	}
	// A port that is no frontend meets the rules that name its address, no others.
	if explainPolicy(key, c, x, frontend && !unknown, step) {
		return x
	}
	if !frontend {
		return done("pass", "the address is no frontend of a VIP: untouched")
	}
	if g := d.Groups[group]; g.Name != "" && !g.Translate {
		step("group "+who, "translate = false")
		return done("pass", "group %s has translate = false: untouched", who)
	}
	if cell.Selective {
		if i, ok := d.Views[bpf.ViewKey{Cell: at, Group: group}]; ok && d.Cells[i].Action != bpf.None {
			cell, x.View = d.Cells[i], d.Groups[group].Name
			step("VIP "+info.VIP, "something of its own for %s", who)
		} else {
			step("VIP "+info.VIP, "nothing of its own for %s: what everybody gets", who)
		}
	}
	if unknown && (cell.Action == bpf.Balance || cell.Action == bpf.RejectDown) {
		return done("reject", "VIP %s has no such port, and reject_unknown_ports = true: ECONNREFUSED", info.VIP)
	}
	switch cell.Action {
	case bpf.Balance:
		x.Backends = shares(d, n, cell, info.VIP, x.View)
		step("backends", "%d", len(x.Backends))
		if cell.Algorithm == bpf.Maglev {
			to, by := c.lead(d, cell)
			x.Chosen, x.Steps = to, append(x.Steps, by)
		}
		return done("balance", "one of %s of VIP %s, %s", prose.Plural(len(x.Backends), "backend"), info.VIP, choiceText(cell, x.Chosen, key))
	case bpf.PassExcept:
		return done("pass", "group %s stands in except of VIP %s: untouched", who, info.VIP)
	case bpf.PassHidden:
		return done("pass", "%s is not among the clients of VIP %s: untouched", who, info.VIP)
	case bpf.PassDown:
		x.Down = true
		return done("pass", "VIP %s has no backend that takes connections, and when_down = \"pass\": untouched", info.VIP)
	case bpf.RejectHidden:
		return done("reject", "%s is not among the clients of VIP %s, and hidden = \"reject\": EHOSTUNREACH", who, info.VIP)
	case bpf.RejectDown:
		x.Down = true
		return done("reject", "VIP %s has no backend that takes connections: EHOSTUNREACH", info.VIP)
	}
	return done("unknown", "this program does not know the action %s", cell.Action)
}

// settled is what the kernel makes of a call that names no address, of a socket that
// has none either. With a policy the programs say so before it does.
func settled(key bpf.FrontendKey) (bpf.FrontendKey, bool) {
	addr := key.Addr.Addr()
	if !addr.IsUnspecified() {
		return key, false
	}
	loopback := netip.IPv6Loopback()
	if addr.Is4() {
		loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	key.Addr = netip.AddrPortFrom(loopback, key.Addr.Port())
	return key, true
}

// frontendCell is the default cell that decides over an address; unknown: by its
// being a port that no frontend names, at an address that refuses those.
func frontendCell(d *bpf.Dump, key bpf.FrontendKey) (cell uint32, unknown, ok bool) {
	index, ok := d.Frontends[key]
	if !ok {
		rest := bpf.FrontendKey{Addr: netip.AddrPortFrom(key.Addr.Addr(), 0), Proto: key.Proto}
		index, unknown = d.Frontends[rest]
		ok = unknown
	}
	cell = d.FrontendRefs[index].Cell
	return cell, unknown, ok && d.Cells[cell].Action != bpf.None
}

func frontendText(k bpf.FrontendKey) string {
	if k.Proto == bpf.UDP {
		return k.Addr.String() + "/udp"
	}
	return k.Addr.String()
}

// shares are the backends that a cell's slots name, with the part of the slots that
// each has. What they weigh is the configuration's to say: see backendsOf.
func shares(d *bpf.Dump, n *bpf.CounterSnapshot, cell bpf.Cell, vip, group string) []api.Backend {
	slots := map[uint32]uint32{}
	for _, slot := range d.Slots[cell.Base] {
		slots[bpf.SlotBackend(slot)]++
	}
	out := make([]api.Backend, 0, len(slots))
	for index, has := range slots {
		counters := n.Backends[index]
		out = append(out, api.Backend{
			VIP: vip, Group: group, Address: d.Backends[index].Addr.String(), Share: float64(has) / float64(cell.Count),
			State: d.BackendCells[index].State.String(), Live: n.Live[index],
			Counters: api.Counters{Connects: counters.Connects, Flows: counters.Flows},
		})
	}
	slices.SortFunc(out, func(a, b api.Backend) int { return strings.Compare(a.Address, b.Address) })
	return out
}

// verdicts are what a caller gets of every VIP, by name, one frontend of each
// family.
func verdicts(d *bpf.Dump, c caller) []api.Verdict {
	first := map[uint32]bpf.FrontendKey{} // by default cell
	for k, index := range d.Frontends {
		if k.Addr.Port() == 0 {
			continue // every other port of the address
		}
		cell := d.FrontendRefs[index].Cell
		if was, ok := first[cell]; !ok || frontendText(k) < frontendText(was) {
			first[cell] = k
		}
	}
	out := []api.Verdict{}
	for _, k := range first {
		if x := explain(d, &bpf.CounterSnapshot{}, k, c); x.VIP != "" {
			out = append(out, api.Verdict{VIP: x.VIP, Address: frontendText(k), Action: x.Action, Reason: x.Reason})
		}
	}
	slices.SortFunc(out, func(a, b api.Verdict) int {
		return cmp.Or(strings.Compare(a.VIP, b.VIP), strings.Compare(a.Address, b.Address))
	})
	return out
}
