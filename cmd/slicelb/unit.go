package main

import (
	"fmt"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/prose"
)

// unitText is a name of units in a line.
func unitText(u api.Unit) string {
	text := fmt.Sprintf("%s at %s, weight %d: %s", prose.Foreign(u.Unit), u.Address, u.Weight, prose.Plural(u.Running, "backend"))
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
	return fmt.Sprintf("%s %s %s", prose.Foreign(b.Unit), b.UnitState, ago(b.UnitSince, now))
}
