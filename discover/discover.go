// Package discover makes backends of what others know to run: today systemd's
// units. It is pure: what is known comes in as a value, and what follows from it
// is an immutable Endpoints. It watches nothing itself.
package discover

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/prose"
)

// Endpoint names a backend of a VIP.
type Endpoint struct {
	VIP  string
	Addr netip.AddrPort
}

// Endpoints is a configuration with the backends that units are.
type Endpoints struct {
	// Config is what was given, where no backend names a unit; else a copy in
	// whose lists of backends the units' stand behind the others, by name.
	Config *config.Config

	// Units are those that are backends. Where two are one backend, it is the
	// one that serves best.
	Units map[Endpoint]Unit

	Wrong []string // what could not be made a backend, and why; names of units are quoted unless plain
}

// maxWrong bounds what is told of units that are no backends.
const maxWrong = 20

// Expand makes a backend of each unit that the configuration wants to be one.
// match reports whether a name with "*" is a unit's.
func Expand(cfg *config.Config, units *Units, match func(pattern, unit string) bool) *Endpoints {
	e := &Endpoints{Config: cfg, Units: map[Endpoint]Unit{}}
	if units == nil || len(cfg.UnitPatterns()) == 0 {
		return e
	}
	x := expansion{Endpoints: e, match: match, units: units}
	out := *cfg
	out.VIPs = slices.Clone(cfg.VIPs)
	for i := range out.VIPs {
		v := &out.VIPs[i]
		v.Backends = x.list(v.Name, "vip."+v.Name, v.Backends, v.Units)
		v.For = slices.Clone(v.For)
		for j := range v.For {
			view := &v.For[j]
			view.Backends = x.list(v.Name, "vip."+v.Name+".for."+view.Group, view.Backends, view.Units)
		}
	}
	e.Config = &out
	return e
}

type expansion struct {
	*Endpoints
	units *Units
	match func(pattern, unit string) bool
}

// list is a list of backends with those that wanted names, each address once:
// what stands in the files first, then the unit that serves best. Over a unit that
// several names match the closest decides.
func (x *expansion) list(vip, title string, fixed []config.Backend, wanted []config.UnitBackend) []config.Backend {
	if len(wanted) == 0 {
		return fixed
	}
	out := slices.Clone(fixed)
	at := make(map[netip.AddrPort]int, len(fixed))
	for i, b := range fixed {
		at[b.Addr] = i
	}
	closest := x.closest(wanted)
	for i := range wanted {
		w := &wanted[i]
		for _, u := range x.named(w.Unit) {
			if closest != nil && closest[unitIn{u.Name, w.Family}] != w.Unit {
				continue
			}
			addr, err := w.Addr(u.Name)
			if err != nil {
				x.wrong("%s: unit %s is no backend: %v", title, prose.Foreign(u.Name), err)
				continue
			}
			j, taken := at[addr]
			switch {
			case taken && out[j].Unit == "":
				x.wrong("%s: unit %s is no backend of its own: %s is one in any case", title, prose.Foreign(u.Name), addr)
				continue
			case taken && out[j].Unit == u.Name: // a name that stands twice, with this address both times
			case taken:
				other := x.units.Find(out[j].Unit)
				if other.State.Serves() && u.State.Serves() {
					x.wrong("%s: units %s and %s have one address, %s: they are one backend", title, prose.Foreign(other.Name), prose.Foreign(u.Name), addr)
				}
				if u.State.before(other.State) {
					out[j].Unit, out[j].Weight, out[j].Origin = u.Name, w.Weight, w.Origin
				}
			case len(out) >= config.MaxPerVIP:
				x.wrong("%s: unit %s is no backend: there are %d already", title, prose.Foreign(u.Name), config.MaxPerVIP)
				continue
			default:
				at[addr] = len(out)
				out = append(out, config.Backend{Addr: addr, Weight: w.Weight, Unit: u.Name, Origin: w.Origin})
			}
			key := Endpoint{vip, addr}
			if have, ok := x.Units[key]; !ok || u.State.before(have.State) {
				x.Units[key] = u
			}
		}
	}
	return out
}

// named are the units of a name.
func (x *expansion) named(pattern string) []Unit {
	head, _, glob := strings.Cut(pattern, "*")
	if !glob {
		if u := x.units.Find(pattern); u != nil {
			return []Unit{*u}
		}
		return nil
	}
	var out []Unit
	first, _ := slices.BinarySearchFunc(x.units.List, head, func(u Unit, name string) int { return strings.Compare(u.Name, name) })
	for _, u := range x.units.List[first:] {
		if !strings.HasPrefix(u.Name, head) {
			break // by name: no other begins so
		}
		if x.match(pattern, u.Name) {
			out = append(out, u)
		}
	}
	return out
}

func (x *expansion) wrong(format string, args ...any) {
	switch n := len(x.Wrong); {
	case n < maxWrong:
		x.Wrong = append(x.Wrong, fmt.Sprintf(format, args...))
	case n == maxWrong:
		x.Wrong = append(x.Wrong, "more units are no backends")
	}
}
