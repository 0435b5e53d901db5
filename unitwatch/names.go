package unitwatch

import (
	"context"
	"fmt"
	"time"

	"github.com/godbus/dbus/v5"
)

// nameRequest asks for units; those with true need their invocation id too.
type nameRequest map[string]bool

// unitName is what systemd says of a unit that it has.
type unitName struct {
	unit, description, invocation string
}

// enquire has systemd asked what cgroupfs does not tell of a unit.
func (v *watch) enquire(d *dir) {
	if !d.marked || d.about.described() == "" {
		if len(v.asks) < maxPending {
			v.asks[d.shape()] = d.about.invoked() == ""
		}
	}
}

// ask hands the next few questions to the bus, one batch at a time.
func (v *watch) ask() {
	if v.asking || len(v.asks) == 0 || v.mail.mode != Bus {
		return
	}
	r := nameRequest{}
	for unit, invocation := range v.asks {
		r[unit] = invocation
		delete(v.asks, unit)
		if len(r) == maxNames {
			break
		}
	}
	v.asking = true
	v.w.bus.requests <- r // one at a time: there is room
}

// named takes systemd's answers. A unit that systemd does not list is not its.
func (v *watch) named(units []unitName) {
	v.asking = false
	for _, u := range units {
		d := v.h.byUnit[u.unit]
		if d == nil {
			continue
		}
		invocation := d.about.invoked()
		if invocation == "" {
			invocation = u.invocation
		}
		d.marked, d.about = true, &about{invocation, u.description}
		v.h.changed = true
	}
}

// namesTries is how often systemd is asked for the same names, and namesRetry how
// long it is left alone after it did not answer: it has more important things to do.
const (
	namesTries = 3
	namesRetry = 2 * time.Second
)

// answer asks systemd for the names of units. An error costs the names alone.
func (b *bus) answer(ctx context.Context, conn *dbus.Conn, r nameRequest) {
	var units []unitName
	if b.currentOwner() != "" {
		var err error
		units, err = b.list(ctx, conn, r)
		switch {
		case err == nil:
			b.namesErr = ""
		case ctx.Err() == nil:
			b.count.callErrors.Add(1)
			if b.namesErr != err.Error() {
				b.log.Warn("ask systemd for names of units, trying again later", "error", err)
			}
			b.namesErr, b.namesNext = err.Error(), time.Now().Add(namesRetry)
			if b.namesTried++; b.namesTried < namesTries {
				b.names = r
				return
			}
		}
	}
	b.namesTried = 0
	b.answers <- units // one is asked for at a time: there is room
}

func (b *bus) list(ctx context.Context, conn *dbus.Conn, r nameRequest) ([]unitName, error) {
	patterns := make([]string, 0, len(r))
	for name := range r { // no valid name has a wildcard, and a backslash is one here
		patterns = append(patterns, name)
	}
	b.lastList = time.Now()
	b.count.calls.Add(1)
	var reply []listed
	if err := call(ctx, conn.Object(systemdName, systemdPath), managerIface+".ListUnitsByPatterns", []string{}, patterns).Store(&reply); err != nil {
		return nil, fmt.Errorf("list units: %w", err)
	}
	var units []unitName
	for _, u := range reply {
		needs, asked := r[u.Name]
		if !asked {
			continue
		}
		n := unitName{unit: u.Name, description: u.Description}
		if needs && u.Active != "inactive" && u.Active != "failed" {
			n.invocation = b.invocation(u.Name)
		}
		units = append(units, n)
	}
	return units, nil
}
