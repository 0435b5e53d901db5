package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
)

// Units that echo on a port, their instance: echo@ is active at once, ready@
// when it listens.
const echoUnit = `[Unit]
Description=Echo on port %%i
[Service]
Type=%s
Environment=%s=%s
ExecStart=%s 127.0.0.1:%%i
%s
`

var unitTOML = grouping + `[vip.db]
frontends = ["10.96.0.10:7000", "10.96.0.10:7000/udp"]
clients = ["web"]

[[vip.db.backend]]
unit = "echo@*.service"
address = "127.0.0.1:%i"
`

// units installs the templates and has their instances stopped afterwards.
func (h *host) units(more ...string) {
	h.t.Helper()
	for name, role := range map[string]string{"echo": "backends", "ready": "ready"} {
		kind := map[string]string{"echo": "simple", "ready": "notify"}[name]
		text := fmt.Sprintf(echoUnit, kind, roleVar, role, actor, strings.Join(more, "\n"))
		if err := h.WriteFile("/etc/systemd/system/"+name+"@.service", []byte(text), 0o644); err != nil {
			h.t.Fatal(err)
		}
	}
	h.must("systemctl", "daemon-reload")
	h.t.Cleanup(func() { h.forget("echo@", "ready@") })
}

// forget stops the instances of templates and removes the templates.
func (h *host) forget(names ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, name := range names {
		script := "systemctl stop --no-block '" + name + "*.service'; systemctl kill --signal=KILL '" + name + "*.service'; " +
			"systemctl stop '" + name + "*.service'; systemctl reset-failed '" + name + "*.service'; " +
			"rm -rf /etc/systemd/system/" + name + "*; systemctl daemon-reload"
		if _, err := h.Run(ctx, "sh", "-c", script); err != nil {
			h.t.Errorf("clean up: %v", err)
		}
	}
}

// vip asks the daemon for the VIP db.
func (h *host) vip() *api.VIP {
	h.t.Helper()
	code, out := h.exit("slicelb", "vip", "show", "db", "-o", "json")
	v := new(api.VIP)
	if err := json.Unmarshal([]byte(out), v); code != 0 || err != nil {
		h.t.Logf("vip show: exit %d: %s", code, out)
		return nil
	}
	return v
}

// backends waits until the VIP's are as said: "PORT STATE UNITSTATE", sorted.
func (h *host) backends(what string, want ...string) *api.VIP {
	h.t.Helper()
	var v *api.VIP
	var got []string
	defer func() {
		if h.t.Failed() {
			h.t.Logf("%s: the backends are %q, not %q", what, got, want)
		}
	}()
	h.eventually(20*time.Second, what, func() bool {
		if v = h.vip(); v == nil {
			return false
		}
		got = nil
		for _, b := range v.Backends {
			_, port, _ := strings.Cut(b.Address, ":")
			got = append(got, strings.TrimSpace(port+" "+b.State+" "+b.UnitState))
		}
		slices.Sort(got)
		return slices.Equal(got, want)
	})
	return v
}

// A backend for each unit that runs, by its state, with no change of the
// configuration.
func TestUnitBackends(t *testing.T) {
	h := install(t)
	h.units()
	h.configure(unitTOML)
	h.start()
	if s := h.healthy(); !strings.Contains(strings.Join(s.Notes, "\n"), "no backend takes connections") {
		t.Errorf("notes: %q", s.Notes)
	}
	h.backends("no unit runs")

	h.must("systemctl", "start", "echo@7001")
	v := h.backends("one is started", "7001 active active")
	if b := v.Backends[0]; b.Unit != "echo@7001.service" || b.UnitSince.IsZero() || v.Units[0].Running != 1 {
		t.Errorf("%+v", b)
	}
	h.must("systemctl", "start", "echo@7002")
	h.backends("another", "7001 active active", "7002 active active")
	if text := h.must("slicelb", "vip", "show", "db", "-o", "wide"); !strings.Contains(text, "echo@7002.service active") || !strings.Contains(text, "echo@*.service at 127.0.0.1:%i, weight 1: 2 backends") {
		t.Errorf("the unit is not named:\n%s", text)
	}

	l := h.load(all...)
	for _, text := range []string{h.must("slicelb", "backend", "list", "-o", "wide"), h.must("slicelb", "explain", vip, "--cgroup", "/web.slice")} {
		if !strings.Contains(text, "7002") {
			t.Errorf("not named:\n%s", text)
		}
	}
	l.more(100)
	// systemd reads its units again: nothing changes, nothing is written.
	writes := h.status().DataPlane.Writes
	for range 3 {
		h.must("systemctl", "daemon-reload")
	}
	h.healthy()
	if n := h.status().DataPlane.Writes; n != writes {
		t.Errorf("%d writes after daemon-reload, %d before", n, writes)
	}
	// The daemon is killed, and started anew without having been told.
	h.kill("KILL")
	h.healthy()
	h.backends("after a kill", "7001 active active", "7002 active active")
	l.more(100)
	l.flawless()
	// A unit of Type=simple is active before it listens: calls may be refused then.
	h.must("systemctl", "start", "echo@7003")
	h.backends("a third", "7001 active active", "7002 active active", "7003 active active")
	h.must("systemctl", "stop", "echo@7003")
	h.backends("it is stopped", "7001 active active", "7002 active active")
	h.must("systemctl", "kill", "--signal=KILL", "echo@7002")
	v = h.backends("it is killed", "7001 active active", "7002 down failed")
	if b := v.Backends[1]; !strings.Contains(b.Reason, "unit echo@7002.service has failed") || b.Since.IsZero() {
		t.Errorf("%+v", b)
	}
	if got := h.ask("/web.slice/ask.scope"); got != "127.0.0.1:7001" {
		t.Errorf("a call gets %s", got)
	}
	h.must("systemctl", "reset-failed", "echo@7002")
	h.backends("it is forgotten", "7001 active active")

	// A unit whose instance makes no address is told, and disturbs nobody.
	h.Run(t.Context(), "systemctl", "start", "echo@nowhere")
	h.eventually(10*time.Second, "it is told", func() bool {
		s := h.status()
		return s != nil && (strings.Contains(strings.Join(s.Notes, "\n"), "unit echo@nowhere.service is no backend"))
	})
	h.backends("the others stay", "7001 active active")

	// The bus goes away: what is known stays, and status says so.
	h.must("systemctl", "stop", "dbus.socket", "dbus.service")
	h.eventually(10*time.Second, "it is told", func() bool {
		s := h.status()
		return s != nil && strings.Contains(strings.Join(s.Notes, "\n"), "the states of units that are backends may be old")
	})
	h.backends("as last known", "7001 active active")
	h.kill("KILL")
	h.backends("as the process before knew", "7001 active active")
	h.must("systemctl", "start", "dbus.socket", "dbus.service")
	h.must("systemctl", "start", "echo@7002")
	h.backends("the bus is back", "7001 active active", "7002 active active")

	// A unit that is starting or stopping takes nothing new.
	h.configure(strings.ReplaceAll(unitTOML, "echo@", "ready@"))
	h.must("systemctl", "stop", "echo@7001", "echo@7002")
	h.must("slicelb", "reload")
	h.must("systemctl", "start", "--no-block", "ready@7001")
	v = h.backends("it starts", "7001 draining activating")
	if b := v.Backends[0]; b.Reason != "unit ready@7001.service is starting" || b.Share != 0 {
		t.Errorf("%+v", b)
	}
	h.must("systemctl", "kill", "--signal=USR1", "ready@7001")
	h.backends("it is ready", "7001 active active")
	h.must("systemctl", "stop", "--no-block", "ready@7001")
	v = h.backends("it stops", "7001 draining deactivating")
	if b := v.Backends[0]; b.Reason != "unit ready@7001.service is stopping" || b.Share != 0 {
		t.Errorf("%+v", b)
	}
	h.must("systemctl", "kill", "--signal=USR1", "ready@7001")
	h.backends("it is gone")
}

// A unit that ended and waits for its RestartSec has nothing that runs: it is down, as one
// that failed. edge D36
func TestUnitWaitsForRestart(t *testing.T) {
	h := install(t)
	h.units("Restart=always", "RestartSec=1h")
	h.configure(unitTOML)
	h.must("systemctl", "start", "echo@7001", "echo@7002")
	h.start()
	h.healthy()
	h.backends("both run", "7001 active active", "7002 active active")
	h.must("systemctl", "kill", "--signal=KILL", "echo@7002")
	v := h.backends("it waits", "7001 active active", "7002 down auto-restart")
	if b := v.Backends[1]; b.Reason != "unit echo@7002.service has ended and waits to be restarted" || b.Since.IsZero() {
		t.Errorf("%+v", b)
	}
	h.must("systemctl", "stop", "echo@7002")
	h.backends("it is stopped", "7001 active active")
}
