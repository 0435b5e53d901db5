package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	busName      = "org.freedesktop.DBus"
	systemdName  = "org.freedesktop.systemd1"
	systemdPath  = dbus.ObjectPath("/org/freedesktop/systemd1")
	managerIface = "org.freedesktop.systemd1.Manager"
	unitPath     = systemdPath + "/unit/x"
)

// A bus on which everybody may do everything.
const openBus = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>custom</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`

// playStorm is a bus of its own on which it is systemd, and says a lot: storm
// DIR RATE COUNT. It prints "bus" when the bus is there, begins when somebody has
// subscribed, prints how many signals a second there were, and stays until
// standard input ends.
func playStorm(args []string) int {
	n, err := numbers(args[1:]...)
	if err != nil {
		return fail(err)
	}
	rate, count := n[0], n[1]
	socket := filepath.Join(args[0], "bus")
	config := filepath.Join(args[0], "bus.conf")
	if err := errors.Join(os.MkdirAll(args[0], 0o755), os.WriteFile(config, fmt.Appendf(nil, openBus, socket), 0o644)); err != nil {
		return fail(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var conn *dbus.Conn
	for deadline := time.Now().Add(10 * time.Second); conn == nil; {
		if conn, err = dbus.Connect("unix:path=" + socket); err != nil {
			if conn = nil; time.Now().After(deadline) {
				return fail(err)
			}
		}
	}
	defer conn.Close()
	subscribed := make(chan struct{}, 16)
	methods := map[string]any{
		"Subscribe": func() *dbus.Error { subscribed <- struct{}{}; return nil },
		"ListUnitsByPatterns": func(states, patterns []string) ([]struct {
			A, B, C, D, E, F string
			G                dbus.ObjectPath
			H                uint32
			I                string
			J                dbus.ObjectPath
		}, *dbus.Error) {
			return nil, nil
		},
	}
	if err := conn.ExportMethodTable(methods, systemdPath, managerIface); err != nil {
		return fail(err)
	}
	if _, err := conn.RequestName(systemdName, dbus.NameFlagDoNotQueue); err != nil {
		return fail(err)
	}
	done := untilInputEnds()
	fmt.Println("bus")
	select {
	case <-subscribed:
	case <-done:
		return 0
	}
	begun := time.Now()
	for i := range count {
		unit := fmt.Sprintf("u%d.scope", i)
		switch i % 3 {
		case 0:
			err = conn.Emit(systemdPath, managerIface+".UnitNew", unit, unitPath)
		case 1:
			err = conn.Emit(systemdPath, managerIface+".JobRemoved", uint32(i), systemdPath+"/job/1", unit, "done")
		default:
			err = conn.Emit(systemdPath, managerIface+".UnitRemoved", unit, unitPath)
		}
		if err != nil {
			return fail(err)
		}
		if i%100 == 99 {
			time.Sleep(time.Until(begun.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		}
	}
	fmt.Println(int(float64(count) / time.Since(begun).Seconds()))
	<-done
	return 0
}

// playForger is an unprivileged user who pretends to be systemd and the bus:
// forger PID COUNT. It sends as many signals as COUNT to every connection of the
// process PID on the system bus, and as many to all: each member that the daemon
// listens to, with bodies of every wrong kind and of the right one. It prints how
// many a second there were.
func playForger(args []string) int {
	n, err := numbers(args...)
	if err != nil {
		return fail(err)
	}
	pid, count := uint32(n[0]), n[1]
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(65534), syscall.Setuid(65534)); err != nil {
		return fail(err)
	}
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	var names, to []string
	if err := conn.BusObject().Call(busName+".ListNames", 0).Store(&names); err != nil {
		return fail(err)
	}
	for _, name := range names {
		var owner uint32
		if !strings.HasPrefix(name, ":") || conn.BusObject().Call(busName+".GetConnectionUnixProcessID", 0, name).Store(&owner) != nil {
			continue // gone meanwhile
		}
		if owner == pid {
			to = append(to, name)
		}
	}
	if len(to) == 0 {
		return fail(fmt.Errorf("process %d is not on the bus", pid))
	}
	bodies := forgedBodies()
	members := []string{"UnitNew", "UnitRemoved", "JobNew", "JobRemoved", "Reloading", "StartupFinished", "UnitFilesChanged", "NameOwnerChanged", "NameAcquired", "PropertiesChanged"}
	begun, sent := time.Now(), 0
	for i := 0; sent < count; i++ {
		body, member := bodies[i%len(bodies)], members[i/len(bodies)%len(members)]
		iface, path := managerIface, systemdPath
		switch member {
		case "NameOwnerChanged", "NameAcquired":
			iface, path = busName, "/org/freedesktop/DBus"
		case "PropertiesChanged":
			iface = "org.freedesktop.DBus.Properties"
		}
		for _, destination := range append([]string{""}, to...) {
			msg := &dbus.Message{Type: dbus.TypeSignal, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
				dbus.FieldPath: dbus.MakeVariant(path), dbus.FieldInterface: dbus.MakeVariant(iface), dbus.FieldMember: dbus.MakeVariant(member),
			}}
			if destination != "" {
				msg.Headers[dbus.FieldDestination] = dbus.MakeVariant(destination)
				sent++
			}
			if len(body) > 0 {
				msg.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
			}
			if call := conn.Send(msg, nil); call.Err != nil {
				return fail(call.Err)
			}
		}
	}
	// The bus answers in order: what was sent before this has been passed on.
	if err := conn.BusObject().Call(busName+".GetId", 0).Err; err != nil {
		return fail(err)
	}
	fmt.Println(int(float64(sent) / time.Since(begun).Seconds()))
	return 0
}

// forgedBodies are the right bodies of every member, and every wrong one: no
// argument to five of each type, and each pair of types.
func forgedBodies() [][]any {
	values := []any{
		"a.service", "", "no unit\n", ":1.5", dbus.ObjectPath("/x"), uint32(7), uint64(7), int16(-1), true, false, 1.5, byte(3),
		[]byte{1}, []string{"x"}, dbus.MakeVariant("x"), []dbus.Variant{}, map[string]dbus.Variant{}, dbus.SignatureOf("x"),
		struct{ A, B string }{"x", "y"},
	}
	bodies := [][]any{
		nil, {"web.slice", unitPath}, {uint32(1), unitPath, "web.slice", "done"}, {true}, {false},
		{systemdName, "", ":1.5"}, {systemdName, ":1.0", ""}, {strings.Repeat("x", 100_000), unitPath},
	}
	for _, a := range values {
		bodies = append(bodies, []any{a}, []any{a, a}, []any{a, a, a}, []any{a, a, a, a}, []any{a, a, a, a, a})
		for _, b := range values {
			bodies = append(bodies, []any{a, b}, []any{"web.slice", a, b}, []any{uint32(1), unitPath, a, b})
		}
	}
	return bodies
}
