package unitwatch

import (
	"errors"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

const (
	systemdName    = "org.freedesktop.systemd1"
	systemdPath    = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerIface   = "org.freedesktop.systemd1.Manager"
	unitIface      = "org.freedesktop.systemd1.Unit"
	busName        = "org.freedesktop.DBus"
	busPath        = dbus.ObjectPath("/org/freedesktop/DBus")
	nameOwnerEvent = "NameOwnerChanged"
)

// managerSignals are those that are subscribed to.
var managerSignals = []string{"UnitNew", "UnitRemoved", "JobRemoved", "Reloading"}

// event is a decoded signal. It only says where to look.
type event struct {
	unit      string // of UnitNew, UnitRemoved, JobNew, JobRemoved
	isJob     bool   // of JobNew: only a unit's state may be about to change
	reloading bool   // of Reloading
	isReload  bool
	owner     string // of NameOwnerChanged: who systemd is now, "" = nobody
	isOwner   bool
}

var errBadSignal = errors.New("signal with another body than systemd's")

// decodeSignal checks a body against what systemd and the bus send. It returns
// an error that wraps errBadSignal for every other body, and ok = false for a
// signal that is not of interest.
func decodeSignal(iface, member string, body []any) (e event, ok bool, err error) {
	bad := func() (event, bool, error) {
		return event{}, false, fmt.Errorf("%s.%s: %w", iface, member, errBadSignal)
	}
	switch {
	case iface == managerIface && (member == "UnitNew" || member == "UnitRemoved"): // so
		if len(body) != 2 {
			return bad()
		}
		unit, ok1 := body[0].(string)
		_, ok2 := body[1].(dbus.ObjectPath)
		if !ok1 || !ok2 || !validUnit(unit) {
			return bad()
		}
		return event{unit: unit}, true, nil
	case iface == managerIface && member == "JobRemoved": // uoss
		if len(body) != 4 {
			return bad()
		}
		_, ok1 := body[0].(uint32)
		_, ok2 := body[1].(dbus.ObjectPath)
		unit, ok3 := body[2].(string)
		_, ok4 := body[3].(string)
		if !ok1 || !ok2 || !ok3 || !ok4 || !validUnit(unit) {
			return bad()
		}
		return event{unit: unit}, true, nil
	case iface == managerIface && member == "JobNew": // uos
		if len(body) != 3 {
			return bad()
		}
		_, ok1 := body[0].(uint32)
		_, ok2 := body[1].(dbus.ObjectPath)
		unit, ok3 := body[2].(string)
		if !ok1 || !ok2 || !ok3 || !validUnit(unit) {
			return bad()
		}
		return event{unit: unit, isJob: true}, true, nil
	case iface == managerIface && member == "Reloading": // b
		if len(body) != 1 {
			return bad()
		}
		active, ok := body[0].(bool)
		if !ok {
			return bad()
		}
		return event{isReload: true, reloading: active}, true, nil
	case iface == busName && member == nameOwnerEvent: // sss
		if len(body) != 3 {
			return bad()
		}
		name, ok1 := body[0].(string)
		_, ok2 := body[1].(string)
		owner, ok3 := body[2].(string)
		if !ok1 || !ok2 || !ok3 || owner != "" && !strings.HasPrefix(owner, ":") {
			return bad()
		}
		return event{isOwner: true, owner: owner}, name == systemdName, nil
	}
	return event{}, false, nil
}

// hasCgroup reports whether a unit of this type can have a cgroup.
func hasCgroup(unit string) bool {
	switch unit[strings.LastIndexByte(unit, '.')+1:] {
	case "slice", "scope", "service", "socket", "mount", "swap":
		return true
	}
	return false
}
