package main

import (
	"fmt"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/unitwatch"
)

// units are the names of units that a VIP's backends are, and how many run.
func (c *counted) units(v *config.VIP) []api.Unit {
	var out []api.Unit
	add := func(group string, list []config.UnitBackend, backends []config.Backend) {
		for _, u := range list {
			one := api.Unit{Unit: u.Unit, Group: group, Address: u.Address, Weight: u.Weight, Origin: u.Origin.String()}
			for _, b := range backends {
				if b.Unit == "" || !unitwatch.MatchUnit(u.Unit, b.Unit) {
					continue
				}
				if addr, err := u.Addr(b.Unit); err == nil && addr == b.Addr {
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
	if o.State == orderMaint {
		text = "in maintenance, by " + userName(o.UID)
	}
	if o.State == orderDrain && v.DrainTimeout > 0 && !now.Before(o.Since.Add(v.DrainTimeout)) {
		text += "; drain_timeout is over"
	}
	if o.ByUnit {
		text += ", until " + foreign(o.Unit) + " stops"
	}
	return text
}

// unitText is a name of units in a line.
func unitText(u api.Unit) string {
	text := fmt.Sprintf("%s at %s, weight %d: %s", foreign(u.Unit), u.Address, u.Weight, plural(u.Running, "backend"))
	if u.Group != "" {
		text += ", for " + u.Group
	}
	return text
}

// unitOfBackend is the unit that a backend is, and how it stands.
func unitOfBackend(b api.Backend, now time.Time) string {
	if b.Unit == "" {
		return ""
	}
	return fmt.Sprintf("%s %s %s", foreign(b.Unit), b.UnitState, ago(b.UnitSince, now))
}
