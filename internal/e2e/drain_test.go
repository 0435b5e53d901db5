package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/internal/scale"
)

const httpUnit = `[Unit]
Description=HTTP on port %%i
StartLimitIntervalSec=0
[Service]
Type=notify
Environment=%s=http
ExecStart=%s 127.0.0.1:%%i
`

var httpTOML = grouping + `[vip.db]
frontends = ["10.96.0.10:7000"]
clients = ["web"]

[[vip.db.backend]]
unit = "http@*.service"
address = "127.0.0.1:%i"
`

const httpDropins = "/etc/systemd/system/http@.service.d"

// deploy has three HTTP servers run behind the VIP, as units.
func (h *host) deploy() {
	h.t.Helper()
	if err := h.WriteFile("/etc/systemd/system/http@.service", fmt.Appendf(nil, httpUnit, roleVar, actor), 0o644); err != nil {
		h.t.Fatal(err)
	}
	h.must("systemctl", "daemon-reload")
	h.t.Cleanup(func() { h.forget("http@") })
	h.must("systemctl", "start", "http@7001", "http@7002", "http@7003")
	h.configure(httpTOML)
	h.start()
	h.healthy()
	h.backends("all three serve", "7001 active active", "7002 active active", "7003 active active")
}

// drains has the servers drained before they are stopped, by the drop-in of the examples,
// with a timeout.
func (h *host) drains(timeout string) {
	h.t.Helper()
	example, err := os.ReadFile("../../packaging/examples/drain.conf")
	if err != nil {
		h.t.Fatal(err)
	}
	text := strings.Replace(string(example), "--timeout 30s", "--timeout "+timeout, 1)
	if err := h.WriteFile(httpDropins+"/slicelb-drain.conf", []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
	h.must("systemctl", "daemon-reload")
}

// wrk is a load of HTTP requests in the group web.
type wrk struct {
	h     *host
	cmd   *exec.Cmd
	stdin io.Closer
	out   *watched
}

func (h *host) wrk(args ...string) *wrk {
	h.t.Helper()
	if _, err := exec.LookPath("wrk"); err != nil {
		if os.Getenv("CI") == "true" {
			h.t.Fatal(err)
		}
		h.t.Skip(err)
	}
	w := &wrk{h: h, out: &watched{grown: make(chan struct{}, 1)}}
	// At the end of its input it is interrupted: then it sums up.
	const script = `wrk "$@" & read -r end; kill -INT $!; wait $!`
	w.cmd = h.CommandIn(h.t.Context(), "/web.slice/wrk.scope", "sh", append(append([]string{"-c", script, "sh", "-t1", "-c8", "-d10m", "--timeout=20s"}, args...), "http://"+vip+"/")...)
	w.cmd.Stdout, w.cmd.Stderr = w.out, w.out
	var err error
	if w.stdin, err = w.cmd.StdinPipe(); err != nil {
		h.t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if w.cmd.ProcessState == nil {
			w.cmd.Process.Kill()
			w.cmd.Wait()
		}
	})
	h.eventually(20*time.Second, "the load runs", func() bool { return h.connects() > 8 })
	return w
}

// end stops the load and returns how many requests were made and how many lost.
func (w *wrk) end() (requests, lost int) {
	w.h.t.Helper()
	w.stdin.Close()
	if err := w.cmd.Wait(); err != nil {
		w.h.t.Fatalf("wrk: %v\n%s", err, w.out.text.String())
	}
	requests, lost, ok := kerneltest.Wrk(w.out.text.String())
	if !ok {
		w.h.t.Fatalf("wrk said:\n%s", w.out.text.String())
	}
	return requests, lost
}

// endsWhole stops the load, of which nothing may be lost.
func (w *wrk) endsWhole() {
	w.h.t.Helper()
	requests, lost := w.end()
	w.h.t.Logf("%d requests, %d lost", requests, lost)
	if lost > 0 || requests == 0 {
		w.h.t.Errorf("of %d requests %d were lost:\n%s", requests, lost, w.out.text.String())
	}
}

// connects is how many calls of the VIP there were.
func (h *host) connects() uint64 {
	h.t.Helper()
	v := h.vip()
	if v == nil {
		h.t.Fatal("no answer")
	}
	return v.Counters.Connects
}

// roll restarts one server after the other, with load before and after each.
func (h *host) roll(restarts int) {
	h.t.Helper()
	for i := range restarts {
		unit := fmt.Sprintf("http@%d.service", 7001+i%3)
		invocation := func() string { return h.must("systemctl", "show", "--property=InvocationID", "--value", unit) }
		before := invocation()
		h.must("systemctl", "restart", unit)
		if after := invocation(); after == before || after == "" {
			h.t.Errorf("%s: not restarted", unit)
		}
		h.backends("all are back after "+unit, "7001 active active", "7002 active active", "7003 active active")
		for _, b := range h.vip().Backends {
			if b.Order != "" {
				h.t.Errorf("%s is still out: %s", b.Address, b.Reason)
			}
		}
	}
}

// A rolling restart of real servers behind a VIP, under a real client's load,
// loses no request: the shipped drop-in drains each one before it is told to end.
func TestRollingRestart(t *testing.T) {
	for _, mode := range []struct {
		name    string
		args    []string
		timeout string // of the wait
		patient bool
	}{
		{"a connection for each request", []string{"-H", "Connection: close"}, "30s", true},
		{"one right after the other", []string{"-H", "Connection: close"}, "30s", false},
		{"connections that are kept", nil, "3s", true},
	} {
		t.Run(mode.name, func(t *testing.T) {
			restarts := 3 * max(1, scale.Count(10))
			h := install(t)
			h.deploy()
			h.drains(mode.timeout)
			w := h.wrk(mode.args...)
			if mode.patient {
				h.roll(restarts)
			} else { // of two, as fast as systemctl returns
				h.must("systemctl", "stop", "http@7003")
				h.must("sh", "-c", fmt.Sprintf("for i in $(seq %d); do systemctl restart http@7001 && systemctl restart http@7002 || exit 1; done", restarts))
				restarts *= 2
			}
			t.Logf("%d restarts", restarts)
			w.endsWhole()
		})
	}
}

// late has each server be active a second before it listens.
func (h *host) late() {
	h.t.Helper()
	late := fmt.Sprintf("[Service]\nType=simple\nNotifyAccess=main\nExecStart=\nExecStart=/bin/sh -c 'sleep 1; exec %s 127.0.0.1:%%i'\n", actor)
	if err := h.WriteFile(httpDropins+"/late.conf", []byte(late), 0o644); err != nil {
		h.t.Fatal(err)
	}
	h.must("systemctl", "daemon-reload")
}

// A server that is active before it listens is restarted: its next run gets nothing until
// a check has found it, and no request is lost. Kills of slicelb begin no run. edge D36
func TestRestartOfLateServers(t *testing.T) {
	h := install(t)
	h.deploy()
	h.drains("30s")
	h.late()
	h.configure(httpTOML + "[vip.db.health]\ninterval = \"500ms\"\n")
	h.must("slicelb", "reload")
	w := h.wrk("-H", "Connection: close")
	for _, port := range []string{"7001", "7002", "7003"} {
		h.must("systemctl", "restart", "http@"+port)
		h.eventually(30*time.Second, "it is up again", func() bool {
			v := h.vip()
			return v != nil && !slices.ContainsFunc(v.Backends, func(b api.Backend) bool { return b.State != "active" })
		})
	}
	before := h.vip().Backends
	h.must("systemctl", "daemon-reload")
	h.kill("KILL")
	h.healthy()
	for i, b := range h.vip().Backends[:2] { // a moment ago the third was found up: nobody has stored it
		if b.Check == nil || b.Check.Since.Sub(before[i].Check.Since).Abs() > time.Second/2 {
			t.Errorf("up anew: %+v, check %+v", b, b.Check)
		}
	}
	w.endsWhole()
}

// Such servers are restarted one right after the other, by their units alone and by
// orders about each, and all at once: the next is not taken out before the one before it
// works, nor, by panic_threshold, are those used meanwhile that do not.
func TestRestartsOfLateServersInARow(t *testing.T) {
	h := install(t)
	h.deploy()
	h.drains("30s")
	h.late()
	for _, tt := range []struct{ servers, threshold int }{{3, 34}, {2, 100}} {
		h.configure(httpTOML + fmt.Sprintf("[vip.db.health]\ninterval = \"500ms\"\npanic_threshold = %d\n", tt.threshold))
		h.must("slicelb", "reload")
		ports, all := "7001 7002", []string{"7001 active active", "7002 active active"}
		if tt.servers == 3 {
			ports, all = ports+" 7003", append(all, "7003 active active")
		} else {
			h.must("systemctl", "stop", "http@7003")
		}
		h.backends("all work", all...)
		w := h.wrk("-H", "Connection: close")
		for _, script := range []string{
			"for port in $1; do systemctl restart http@$port; done",
			"for port in $1; do slicelb backend maint --timeout 30s db 127.0.0.1:$port; systemctl restart http@$port; slicelb backend ready db 127.0.0.1:$port; done",
			"systemctl restart $(printf 'http@%s ' $1)", // all at once
		} {
			h.must("sh", "-ec", script, "sh", ports)
			h.backends("all are back", all...)
		}
		t.Logf("%d servers, panic_threshold %d", tt.servers, tt.threshold)
		w.endsWhole()
	}
}

// slicelb is killed as a server is told to stop: the stop waits for the next process,
// and so it does where that comes in the middle of it.
func TestStopWhileDaemonRestarts(t *testing.T) {
	h := install(t)
	h.deploy()
	h.drains("30s")
	w := h.wrk("-H", "Connection: close")
	for _, script := range []string{
		"systemctl kill --signal=KILL " + unit + "; systemctl restart http@7001",
		"systemctl restart --no-block " + unit + "; systemctl restart http@7002",
		"systemctl restart --no-block http@7003; systemctl kill --signal=KILL " + unit + "; systemctl restart http@7003",
	} {
		h.must("sh", "-c", script)
		h.healthy()
		h.backends("all are back", "7001 active active", "7002 active active", "7003 active active")
	}
	w.endsWhole()
}

// What a restart loses without the drop-in: what calls between the moment in
// which the server closes its socket and the one in which slicelb has heard of the
// stop. It is measured, and bounded generously.
func TestRestartWithoutDropIn(t *testing.T) {
	h := install(t)
	h.deploy()
	w := h.wrk("-H", "Connection: close")
	restarts := 3 * max(1, scale.Count(20))
	h.roll(restarts)
	requests, lost := w.end()
	t.Logf("without the drop-in: %d restarts, %d requests, %d lost, %.1f for each restart", restarts, requests, lost, float64(lost)/float64(restarts))
	if lost > requests/2 || requests == 0 {
		t.Errorf("of %d requests %d were lost", requests, lost)
	}
}

// The drop-in never holds a stop up where slicelb does not run.
func TestStopWithoutDaemon(t *testing.T) {
	h := install(t)
	h.deploy()
	h.drains("30s")
	h.must("systemctl", "stop", unit)
	begun := time.Now()
	h.must("systemctl", "stop", "http@7001")
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("the stop took %v", took)
	}
	if result := h.must("systemctl", "show", "--property=Result", "--value", "http@7001"); result != "success" {
		t.Errorf("the stop's result is %s", result)
	}
}

// Nor does it where slicelb is stopped meanwhile and the bus has ended before, as at a
// shutdown.
func TestStopAtShutdown(t *testing.T) {
	h := install(t)
	h.deploy()
	h.drains("30s")
	h.must("systemctl", "stop", "http@7002", "http@7003")
	h.backends("one serves", "7001 active active")
	w := h.wrk()
	h.must("systemctl", "stop", "--no-block", "http@7001")
	h.backends("its connections are waited for", "7001 draining deactivating")
	t.Cleanup(func() { h.Run(context.Background(), "systemctl", "start", "dbus.socket", "dbus.service") })
	h.must("systemctl", "stop", "dbus.socket", "dbus.service")
	begun := time.Now()
	h.must("systemctl", "stop", unit)
	h.eventually(15*time.Second, "the server stops", func() bool {
		return h.must("systemctl", "show", "--property=ActiveState", "--value", "http@7001") == "inactive"
	})
	t.Logf("the stop went on for %v", time.Since(begun))
	w.end()
}
