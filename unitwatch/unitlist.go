package unitwatch

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// maxByName is how many units are asked for by name at once.
const maxByName = 64

// unitsRetry is how long systemd is left alone after it did not answer.
const unitsRetry = time.Second

// unitSignals are subscribed to while unit states are wanted: a job for a unit
// is the first word of its stop, and a state that changes without a job, such as
// a crash, makes no other signal than the last.
var unitSignals = []string{
	fmt.Sprintf("type='signal',sender='%s',path='%s',interface='%s',member='JobNew'", systemdName, systemdPath, managerIface),
	fmt.Sprintf("type='signal',sender='%s',path_namespace='%s',interface='%s',member='%s',arg0='%s'",
		systemdName, unitPrefix, propertiesIface, propertiesChanged, unitIface),
}

const (
	unitPrefix        = systemdPath + "/unit"
	propertiesIface   = "org.freedesktop.DBus.Properties"
	propertiesChanged = "PropertiesChanged"
)

// listed is what ListUnitsByPatterns returns of a unit.
type listed struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	Job                                             uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

// matchUnits adds the match rules of unitSignals to a connection, or takes them
// away again.
func (b *bus) matchUnits(ctx context.Context, conn *dbus.Conn) error {
	want := b.states.follows()
	if want == b.matched {
		return nil
	}
	method := ".AddMatch"
	if !want {
		method = ".RemoveMatch"
	}
	for _, r := range unitSignals {
		if err := call(ctx, conn.BusObject(), busName+method, r).Err; err != nil {
			return fmt.Errorf("match units: %w", err)
		}
	}
	b.matched = want
	return nil
}

// askUnits asks systemd how units stand that may stand otherwise by now.
func (b *bus) askUnits(ctx context.Context, conn *dbus.Conn) {
	if err := b.matchUnits(ctx, conn); err != nil {
		b.unitsFailed(ctx, question{full: true}, err)
		return
	}
	q := b.states.ask()
	if len(q.ask) == 0 && !q.full {
		return
	}
	var units []Unit
	if len(q.ask) > 0 {
		var err error
		if units, err = b.unitStates(ctx, conn, q); err != nil {
			b.unitsFailed(ctx, q, err)
			return
		}
	}
	b.unitsErr = ""
	b.states.answered(q, units, time.Now())
}

// unitsFailed has a question asked again after a while.
func (b *bus) unitsFailed(ctx context.Context, q question, err error) {
	if ctx.Err() != nil {
		err = ctx.Err() // the next connection asks for everything
	} else {
		b.count.callErrors.Add(1)
		if b.unitsErr != err.Error() {
			b.log.Warn("ask systemd for states of units, trying again", "error", err)
		}
		b.unitsErr = err.Error()
	}
	b.states.failed(q, err.Error())
	b.unitsDue, b.unitsNext = true, time.Now().Add(unitsRetry)
}

// lists asks systemd for the next list that is due: at most one in listInterval,
// of names and of states by turns. It returns when to call it again.
func (b *bus) lists(ctx context.Context, conn *dbus.Conn) time.Duration {
	now := time.Now()
	units := b.unitsDue && b.currentOwner() != "" // else subscribe has everything asked
	if b.names == nil && !units {
		return time.Hour
	}
	if wait := listInterval - now.Sub(b.lastList); wait > 0 {
		return wait
	}
	untilUnits, untilNames := b.unitsNext.Sub(now), b.namesNext.Sub(now)
	units, names := units && untilUnits <= 0, b.names != nil && untilNames <= 0
	switch {
	case units && (!names || !b.unitsLast):
		b.unitsDue, b.unitsLast = false, true
		b.askUnits(ctx, conn)
	case names:
		r := b.names
		b.names, b.unitsLast = nil, false
		b.answer(ctx, conn, r)
	case b.names == nil:
		return untilUnits
	case !b.unitsDue:
		return untilNames
	default:
		return max(listInterval, min(untilUnits, untilNames))
	}
	return listInterval
}

func (b *bus) unitStates(ctx context.Context, conn *dbus.Conn, q question) ([]Unit, error) {
	b.lastList = time.Now()
	b.count.calls.Add(1)
	var reply []listed
	if err := call(ctx, conn.Object(systemdName, systemdPath), managerIface+".ListUnitsByPatterns", []string{}, q.ask).Store(&reply); err != nil {
		return nil, fmt.Errorf("list units: %w", err)
	}
	var units []Unit
	for _, l := range reply {
		state, job, ok := unitState(l)
		if !ok || !b.states.wants(l.Name) {
			continue
		}
		u := Unit{Name: l.Name, State: state, Sub: l.Sub, StartJob: job}
		if state != UnitFailed && state != UnitWaiting {
			u.Invocation = b.invocation(l.Name)
		}
		units = append(units, u)
	}
	return units, nil
}

// invocation is a unit's invocation id, which it has while it is neither inactive nor
// failed, from the link that systemd keeps for the journal (unit_export_state_files(),
// systemd 235 and later). "" where there is none: a unit without processes has none.
// To ask for the property would load a unit that has gone since it was listed. systemd
// does not call the link an interface: without it, a restart that is over between two
// looks passes for one run, and nothing else changes.
func (b *bus) invocation(unit string) string {
	id, err := os.Readlink(filepath.Join(b.runs, "invocation:"+unit))
	if err != nil || !validInvocation(id) {
		return ""
	}
	return id
}

// unitState knows every ActiveState but those of a unit that does not run. The SubState
// says of one what activating does not: that a service waits for its RestartSec=, queued
// since systemd 252 where its restart is a job already. job: it is to start, and does not
// yet.
func unitState(l listed) (state UnitState, job, ok bool) {
	job = isStart(l.JobType)
	switch l.Active {
	case "active":
		return UnitActive, false, true
	case "reloading", "refreshing":
		return UnitReloading, false, true
	case "activating":
		if l.Sub == "auto-restart" || l.Sub == "auto-restart-queued" {
			return UnitWaiting, false, true
		}
		return UnitActivating, false, true
	case "deactivating":
		return UnitDeactivating, job, true
	case "failed":
		return UnitFailed, false, true
	case "inactive":
		return UnitActivating, job, job
	}
	return 0, false, false // maintenance, which is no service's
}

// isStart reports whether a job of a type starts its unit: "restart" while that stops,
// whatever restart was asked for (job_type_collapse()), and "start" when it has stopped.
func isStart(jobType string) bool { return jobType == "restart" || jobType == "start" }

// unitOfPath is the unit that an object path names.
func unitOfPath(path string) (string, bool) {
	label, ok := strings.CutPrefix(path, string(unitPrefix)+"/")
	if !ok || label == "" {
		return "", false
	}
	var name strings.Builder
	for i := 0; i < len(label); i++ {
		if label[i] != '_' {
			name.WriteByte(label[i])
			continue
		}
		c, err := hex.DecodeString(label[i+1 : min(i+3, len(label))])
		if err != nil || len(c) != 1 {
			return "", false
		}
		name.WriteByte(c[0])
		i += 2
	}
	return name.String(), validUnit(name.String())
}
