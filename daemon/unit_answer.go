package daemon

import (
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/prose"
)

// units are the names of units that a VIP's backends are, and how many run.
func (c *counted) units(v *config.VIP) []api.Unit {
	var out []api.Unit
	add := func(group string, list []config.UnitBackend, backends []config.Backend) {
		for _, u := range list {
			one := api.Unit{Unit: u.Unit, Group: group, Address: u.Address, Weight: u.Weight, Origin: u.Origin.String()}
			for _, b := range backends {
				if b.Unit != "" && b.Origin == u.Origin {
					one.Running++
				}
			}
			out = append(out, one)
		}
	}
	add("", v.Units, v.Backends)
	for _, view := range v.For {
		add(view.Group, view.Units, view.Backends)
	}
	return out
}

// orderReason says whose order it is, and how long it holds.
func orderReason(o order, v *config.VIP, now time.Time) string {
	text := "drained by " + userName(o.UID)
	if o.State == api.OrderMaint {
		text = "in maintenance, by " + userName(o.UID)
	}
	if o.State == api.OrderDrain && v.DrainTimeout > 0 && !now.Before(o.Since.Add(v.DrainTimeout)) {
		text += "; drain_timeout is over"
	}
	if o.ByUnit {
		text += ", until " + prose.Foreign(o.Unit) + " stops"
	}
	return text
}
