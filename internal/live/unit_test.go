package live

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/unitwatch"
)

const (
	systemdPath  = "/org/freedesktop/systemd1"
	managerIface = "org.freedesktop.systemd1.Manager"
)

// manager has systemd's name on a bus of the test's own, and units that are as
// the test says.
type manager struct {
	*host
	conn *dbus.Conn

	mu    sync.Mutex
	units map[string]string // name -> ActiveState
	runs  map[string]int
}

// newManager starts a bus and has the daemon use it.
func (h *host) newManager() *manager {
	h.Helper()
	path, err := exec.LookPath("dbus-daemon")
	if err != nil {
		if os.Getenv("CI") == "true" {
			h.Fatal(err)
		}
		h.Skip(err)
	}
	dir := h.TempDir()
	address := "unix:path=" + filepath.Join(dir, "bus")
	config := `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>custom</type><listen>` + address + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`
	if err := os.WriteFile(filepath.Join(dir, "bus.conf"), []byte(config), 0o600); err != nil {
		h.Fatal(err)
	}
	bus := exec.Command(path, "--config-file="+filepath.Join(dir, "bus.conf"), "--nofork", "--nopidfile", "--nosyslog")
	bus.SysProcAttr = mortal()
	if err := bus.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		_ = bus.Process.Kill()
		_ = bus.Wait() // killed: its status is known
	})
	h.until("the bus listens", func() bool {
		c, err := net.Dial("unix", filepath.Join(dir, "bus"))
		if err == nil {
			c.Close()
		}
		return err == nil
	}, func() string { return address })
	h.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)

	h.systemd = h.TempDir()
	if err := os.Mkdir(filepath.Join(h.systemd, "units"), 0o755); err != nil {
		h.Fatal(err)
	}
	m := &manager{host: h, units: map[string]string{}, runs: map[string]int{}}
	if m.conn, err = dbus.Connect(address); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { m.conn.Close() })
	methods := map[string]any{"Subscribe": func() *dbus.Error { return nil }, "ListUnitsByPatterns": m.list}
	if err := m.conn.ExportMethodTable(methods, systemdPath, managerIface); err != nil {
		h.Fatal(err)
	}
	if _, err := m.conn.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue); err != nil {
		h.Fatal(err)
	}
	return m
}

type listedUnit struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	Job                                             uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

func (m *manager) list(_, patterns []string) ([]listedUnit, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []listedUnit{}
	for name, active := range m.units {
		if slices.ContainsFunc(patterns, func(p string) bool { return unitwatch.MatchUnit(p, name) }) {
			out = append(out, listedUnit{
				Name: name, Load: "loaded", Active: active, Sub: active, JobPath: "/",
				Path: dbus.ObjectPath(systemdPath + "/unit/" + hex.EncodeToString([]byte(name))),
			})
		}
	}
	return out, nil
}

// link writes the invocation id of a unit's run, as systemd does before it runs anything.
func (m *manager) link(unit string) {
	m.Helper()
	at := filepath.Join(m.systemd, "units", "invocation:"+unit)
	if err := os.Symlink(fmt.Sprintf("%032x", m.runs[unit]), at+".new"); err != nil {
		m.Fatal(err)
	}
	if err := os.Rename(at+".new", at); err != nil {
		m.Fatal(err)
	}
}

// turn has a unit be in a state, "" for inactive, in this run or in the next.
func (m *manager) turn(unit, active string, again bool) {
	m.Helper()
	m.mu.Lock()
	if again {
		m.runs[unit]++
		m.link(unit)
	}
	if active == "" {
		delete(m.units, unit)
	} else {
		m.units[unit] = active
	}
	m.mu.Unlock()
	if err := m.conn.Emit(systemdPath, managerIface+".JobRemoved", uint32(1), dbus.ObjectPath(systemdPath+"/job/1"), unit, "done"); err != nil {
		m.Fatal(err)
	}
}

// find is a backend of the VIP web; nil: there is none.
func (h *host) find(addr netip.AddrPort) *api.Backend {
	h.Helper()
	v, err := h.client.VIP(h.Context(), "web")
	if err != nil {
		h.Fatal(err)
	}
	for i := range v.Backends {
		if v.Backends[i].Address == addr.String() {
			return &v.Backends[i]
		}
	}
	return nil
}

// What a unit's state is for calls, and how long an order about a unit holds, and
// one about its address.
func TestUnitOrders(t *testing.T) {
	h := newHost(t)
	m := h.newManager()
	a, b := kerneltest.Serve(t, "a", "127.0.0.1:0"), kerneltest.Serve(t, "b", "127.0.0.1:0")
	unit := fmt.Sprintf("web@%d.service", a.Addr.Port())
	m.turn(unit, "active", true)
	h.serve(vipOf("web", `"`+vip+`"`, "", b.Addr.String()) + "[[vip.web.backend]]\nunit = \"web@*.service\"\naddress = \"127.0.0.1:%i\"\n")
	c := kerneltest.Start(t, h.root)
	is := func(what, want string, ok func(*api.Backend) bool) {
		t.Helper()
		h.until(what, func() bool { return ok(h.find(a.Addr)) }, func() string { return fmt.Sprintf("%+v", h.find(a.Addr)) })
		if got := who(t, c); got != want {
			t.Errorf("%s: %s answer, not %s", what, got, want)
		}
	}
	active := func(b *api.Backend) bool { return b != nil && b.Share > 0 && b.Order == "" }
	state := func(unitState, kernel string) func(*api.Backend) bool {
		return func(b *api.Backend) bool { return b != nil && b.UnitState == unitState && b.State == kernel }
	}
	is("at the start", "a b", active)
	for _, s := range []struct{ unit, kernel, who string }{
		{"reloading", "active", "a b"}, {"deactivating", "draining", "b"}, {"activating", "draining", "b"},
		{"failed", "down", "b"}, {"active", "active", "a b"},
	} {
		m.turn(unit, s.unit, s.unit == "activating")
		is(s.unit, s.who, state(s.unit, s.kernel))
	}

	// An order about the unit: the stop waits for what is connected, and the next
	// run is another one.
	conn := reach(t, "a", openTCP(t, c))
	stop := h.command("backend", "drain", "--unit", unit, "--wait", "--timeout", "60s")
	if err := stop.Start(); err != nil {
		t.Fatal(err)
	}
	m.turn(unit, "deactivating", false)
	is("it stops", "b", func(b *api.Backend) bool { return b != nil && b.Order == "drain" && b.UnitState == "deactivating" })
	if r := h.find(a.Addr).Reason; r != "drained by root, until "+unit+" stops" {
		t.Errorf("the reason is %q", r)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if live, err := h.client.Live(ctx, api.BackendChange{Unit: unit}); err != nil || live.Total() != 1 {
		t.Errorf("%+v, %v", live, err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := stop.Wait(); err != nil {
		t.Error(err)
	}
	m.turn(unit, "", false)
	is("it is stopped", "b", func(b *api.Backend) bool { return b == nil })
	m.turn(unit, "active", true)
	is("its next run", "a b", active)

	// A restart so quick that nobody saw the unit stopped.
	h.slicelb("backend", "drain", "--unit", unit)
	is("drained", "b", func(b *api.Backend) bool { return b != nil && b.Order == "drain" })
	h.reload(vipOf("web", `"`+vip+`"`, "", b.Addr.String()) + "[[vip.web.backend]]\nunit = \"web@*.service\"\naddress = \"127.0.0.1:%i\"\nweight = 2\n")
	is("after a reload", "b", func(b *api.Backend) bool { return b != nil && b.Order == "drain" && b.Weight == 2 })
	m.turn(unit, "active", true)
	is("restarted", "a b", active)

	// An order about the address is the operator's, whoever runs there.
	h.slicelb("backend", "drain", "web", a.Addr.String())
	m.turn(unit, "", false)
	is("stopped", "b", func(b *api.Backend) bool { return b == nil })
	m.turn(unit, "active", true)
	is("still drained", "b", func(b *api.Backend) bool { return b != nil && b.Order == "drain" })
	h.slicelb("backend", "ready", "web", a.Addr.String())
	is("ready", "a b", active)
	h.slicelb("backend", "maint", "--unit", unit)
	is("in maintenance", "b", state("active", "down"))
	h.slicelb("backend", "ready", "--unit", unit)
	is("ready again", "a b", active)
}
