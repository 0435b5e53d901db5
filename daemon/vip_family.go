package daemon

import (
	"fmt"
	"net/netip"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
)

// families are those of the VIP's frontends that backends are meant for, with how many
// take new connections. Where all backends are a family's views', and where nobody gets
// the VIP's own, those of the views are counted.
// Units are meant, whether one runs or not.
func (c *counted) families(v *config.VIP) (out []api.Family) {
	for _, family := range []int{4, 6} {
		called := false
		for _, f := range v.Frontends {
			called = called || familyOf(f.Addr.Addr()) == family
		}
		var meant bool
		var up int
		if v.Own() {
			meant, up = c.meant(v.Name, "", family, v.Backends, v.Units)
		}
		if !meant {
			for _, view := range v.For {
				m, n := c.meant(v.Name, view.Group, family, view.Backends, view.Units)
				meant, up = meant || m, up+n
			}
		}
		if called && meant {
			out = append(out, api.Family{Family: family, Up: up})
		}
	}
	return out
}

// meant says whether one list is to have backends of a family, and how many take
// connections.
func (c *counted) meant(vip, group string, family int, backends []config.Backend, units []config.UnitBackend) (meant bool, up int) {
	for _, u := range units {
		meant = meant || int(u.Family) == family
	}
	for _, b := range backends {
		if familyOf(b.Addr.Addr()) != family {
			continue
		}
		meant = true
		if c.share[shareKey{vip, group, b.Addr}] > 0 {
			up++
		}
	}
	return meant, up
}

func familyOf(addr netip.Addr) int {
	if addr.Unmap().Is4() {
		return 4
	}
	return 6
}

// downNote says that callers get when_down, of the whole VIP or of one family; "" where
// they do not.
func downNote(v *api.VIP) string {
	which, down := "", 0
	for _, f := range v.Families {
		if f.Up == 0 {
			which, down = fmt.Sprintf("IPv%d ", f.Family), down+1
		}
	}
	if down == 0 {
		return ""
	}
	if down == len(v.Families) {
		which = ""
	}
	return fmt.Sprintf("vip.%s: no %sbackend takes connections; when_down = %q", v.Name, which, v.WhenDown)
}
