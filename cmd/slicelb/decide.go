package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
)

// Explain works the kernel's answer out from its maps: the same look-ups in the
// same order.
func (a answers) Explain(_ context.Context, q api.Question) (*api.Explanation, error) {
	key, err := parseFrontend(q.Address)
	if err != nil {
		return nil, api.Errorf(api.BadRequest, "address %q: %v", q.Address, err)
	}
	if !strings.HasPrefix(q.Cgroup, "/") || path.Clean(q.Cgroup) != q.Cgroup {
		return nil, api.Errorf(api.BadRequest, "cgroup %q: want an absolute path below the cgroup root", q.Cgroup)
	}
	v := a.d.view.Load()
	line, err := ancestry(v.status.DataPlane.CgroupRoot, q.Cgroup)
	if err != nil {
		return nil, err
	}
	d := &bpf.Dump{}
	if v.dp != nil {
		if d, err = v.dp.Dump(); err != nil {
			return nil, fmt.Errorf("read the maps: %w", err)
		}
	}
	x := explain(d, key, line)
	x.Address = q.Address
	v.name(x)
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
	ap, err := netip.ParseAddrPort(addr)
	if err != nil || ap.Addr().Zone() != "" {
		return k, errFrontend
	}
	k.Addr = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	return k, nil
}

// ancestor is a cgroup on the way from a caller to the root.
type ancestor struct {
	path string
	id   uint64
}

// ancestry is a cgroup and all above it, innermost first. No component may be a
// link; cgroupfs has none.
func ancestry(root, cgroup string) ([]ancestor, error) {
	var line []ancestor
	for p := cgroup; ; p = path.Dir(p) {
		var st unix.Stat_t
		err := unix.Lstat(filepath.Join(root, p), &st)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENAMETOOLONG):
			return nil, &api.Error{Code: api.NotFound, Text: fmt.Sprintf("cgroup %s does not exist", foreign(p)), Hint: "a path below " + root}
		case err != nil:
			return nil, fmt.Errorf("cgroup %s: %w", foreign(p), err)
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return nil, api.Errorf(api.NotFound, "cgroup %s is no folder", foreign(p))
		}
		line = append(line, ancestor{p, st.Ino})
		if p == "/" {
			return line, nil
		}
	}
}

// explain follows a call through the maps, as decide() in the programs does.
func explain(d *bpf.Dump, key bpf.FrontendKey, line []ancestor) *api.Explanation {
	x := &api.Explanation{Cgroup: line[0].path, Group: hostGroup, Backends: []api.Backend{}}
	step := func(look, format string, args ...any) {
		x.Steps = append(x.Steps, api.Step{Look: look, Found: fmt.Sprintf(format, args...)})
	}
	done := func(action, format string, args ...any) *api.Explanation {
		x.Action, x.Reason = action, fmt.Sprintf(format, args...)
		return x
	}

	var group uint32
	for _, c := range line {
		if r, ok := d.Cgroups[c.id]; ok && r.Group != 0 {
			group, x.Group, x.Decided = r.Group, d.Groups[r.Group].Name, c.path
			break
		}
	}
	if group != 0 {
		step("caller "+foreign(line[0].path), "group %s, by %s", x.Group, foreign(x.Decided))
	} else {
		step("caller "+foreign(line[0].path), "no group covers it: %s", hostGroup)
	}

	index, ok := d.Frontends[key]
	ref := d.FrontendRefs[index]
	cell := d.Cells[ref.Cell]
	if !ok || cell.Action == bpf.None {
		step("address "+frontendText(key), "no frontend")
		return done("pass", "the address is no frontend of a VIP: untouched")
	}
	info := d.CellInfos[ref.Cell]
	x.VIP = info.VIP
	step("address "+frontendText(key), "VIP %s (IPv%d)", info.VIP, info.Family)

	if g := d.Groups[group]; g.Name != "" && !g.Translate {
		step("group "+x.Group, "translate = false")
		return done("pass", "group %s has translate = false: untouched", x.Group)
	}
	if cell.Selective {
		if i, ok := d.Views[bpf.ViewKey{Cell: ref.Cell, Group: group}]; ok && d.Cells[i].Action != bpf.None {
			cell, x.View = d.Cells[i], x.Group
			step("VIP "+info.VIP, "something of its own for %s", x.Group)
		} else {
			step("VIP "+info.VIP, "nothing of its own for %s: what everybody gets", x.Group)
		}
	}
	switch cell.Action {
	case bpf.Balance:
		x.Backends = shares(d, cell, info.VIP, x.View)
		step("backends", "%d", len(x.Backends))
		return done("balance", "one of %s of VIP %s, by weight", plural(len(x.Backends), "backend"), info.VIP)
	case bpf.PassExcept:
		return done("pass", "group %s stands in except of VIP %s: untouched", x.Group, info.VIP)
	case bpf.PassHidden:
		return done("pass", "%s is not among the clients of VIP %s: untouched", x.Group, info.VIP)
	case bpf.PassDown:
		return done("pass", "VIP %s has no backend that takes connections, and when_down = \"pass\": untouched", info.VIP)
	case bpf.RejectHidden:
		return done("reject", "%s is not among the clients of VIP %s, and hidden = \"reject\": EHOSTUNREACH", x.Group, info.VIP)
	case bpf.RejectDown:
		return done("reject", "VIP %s has no backend that takes connections: EHOSTUNREACH", info.VIP)
	}
	return done("unknown", "this program does not know the action %s", cell.Action)
}

// hostGroup is the group of a caller that no configured group covers.
const hostGroup = "host"

func frontendText(k bpf.FrontendKey) string {
	if k.Proto == bpf.UDP {
		return k.Addr.String() + "/udp"
	}
	return k.Addr.String()
}

// shares are the backends that a cell's slots name, with the number of slots
// as their weight.
func shares(d *bpf.Dump, cell bpf.Cell, vip, group string) []api.Backend {
	n := map[uint32]uint32{}
	for _, index := range d.Slots[cell.Base] {
		n[index]++
	}
	out := make([]api.Backend, 0, len(n))
	for index, slots := range n {
		out = append(out, api.Backend{
			VIP: vip, Group: group, Address: d.Backends[index].Addr.String(), Weight: slots,
			State: d.BackendCells[index].State.String(),
		})
	}
	slices.SortFunc(out, func(a, b api.Backend) int { return strings.Compare(a.Address, b.Address) })
	return out
}

// name adds what only user space knows: which pattern of the configuration made
// the deciding cgroup an anchor.
func (v *view) name(x *api.Explanation) {
	if v.snap == nil {
		return
	}
	for _, c := range v.snap.Cgroups {
		if c.Path == x.Decided {
			x.Pattern = c.Match.Pattern
			if c.Group != "" && c.Match.Split {
				x.Group = c.Group
			}
		}
	}
}
