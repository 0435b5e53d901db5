package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/scale"
)

// systemd reads thousands of units again: each is removed and made anew on paper,
// and at no time is a group empty in the kernel. edge T7
func TestReloadOfThousands(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(strings.Replace(oldTOML, `["web.slice"]`, `["web.slice", "/web.slice/web-*.slice"]`, 1))
	n := scale.Count(5000)
	h.slices("web", n)
	h.start()
	l := h.load(oldOnes...)
	s := h.sample("/web.slice")
	before := h.settled()
	if before.Tracking.Anchors != n+1 {
		t.Errorf("%d anchors, want %d", before.Tracking.Anchors, n+1)
	}
	maps := h.must("slicelb", "dump", "maps")
	const reloads = 5
	for range reloads {
		h.must("systemctl", "daemon-reload")
	}
	h.eventually(5*time.Minute, "two signals of each unit and reload were heard, and everything looked at", func() bool {
		st := h.status()
		return st != nil && st.Tracking.Sources["signals"] >= before.Tracking.Sources["signals"]+uint64(2*reloads*n) &&
			st.Tracking.Resync.Count > before.Tracking.Resync.Count
	})
	after := h.settled()
	s.steady()
	if after.DataPlane.Writes != before.DataPlane.Writes {
		t.Errorf("%d writes, %d before", after.DataPlane.Writes, before.DataPlane.Writes)
	}
	h.sameMaps(maps)
	heard := after.Tracking.Sources["signals"] - before.Tracking.Sources["signals"]
	if lost := after.Tracking.Sources["kernel_lost"]; lost != 0 {
		t.Errorf("%d lost hints", lost)
	}
	t.Logf("%d daemon-reloads with %d slices: %d signals heard, no write", reloads, n, heard)
	l.flawless()
}

// sameMaps compares the maps with what they held before.
func (h *host) sameMaps(before string) {
	h.t.Helper()
	after := h.must("slicelb", "dump", "maps")
	if after == before {
		return
	}
	had := map[string]bool{}
	for line := range strings.Lines(before) {
		had[line] = true
	}
	for line := range strings.Lines(after) {
		if !had[line] {
			h.t.Errorf("the maps have what they had not: %s", line)
		}
		delete(had, line)
	}
	for line := range had {
		h.t.Errorf("the maps have no more: %s", line)
	}
}

// slices has systemd make slices below one until the test ends.
func (h *host) slices(name string, n int) {
	h.t.Helper()
	batch := func(verb string) {
		for at := 0; at < n; at += 500 {
			args := []string{verb}
			for i := at; i < min(n, at+500); i++ {
				args = append(args, fmt.Sprintf("%s-%d.slice", name, i))
			}
			h.must("systemctl", args...)
		}
	}
	batch("start")
	h.t.Cleanup(func() { h.Run(context.Background(), "systemctl", "stop", name+".slice") })
}

// busName is a process's unique name on the bus.
func (h *host) busName(pid string) string {
	h.t.Helper()
	names := h.must("busctl", "--no-legend", "list")
	for line := range strings.Lines(names) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == pid && strings.HasPrefix(f[0], ":") {
			return f[0]
		}
	}
	h.t.Fatalf("the daemon is not on the bus:\n%s", names)
	return ""
}

// managerTime is how long PID 1 of the lab has run so far.
func (h *host) managerTime() time.Duration {
	h.t.Helper()
	n, err := numbers(strings.Fields(h.must("cat", "/proc/1/schedstat"))[0])
	if err != nil {
		h.t.Fatal(err)
	}
	return time.Duration(n[0])
}

// When nothing happens, nothing is asked: not of systemd, not of the bus. What is left
// of us in PID 1 is the watchdog's ping.
func TestIdle(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.settled()
	seconds := max(3, scale.Count(60))
	// Two quiet stretches, with the daemon and without.
	quiet := func() time.Duration {
		begun := h.managerTime()
		h.must("sleep", strconv.Itoa(seconds)) // the idling itself
		return h.managerTime() - begun
	}
	with := quiet()
	h.must("systemctl", "stop", unit)
	without := quiet()
	h.start()
	h.settled()
	t.Logf("PID 1 ran for %v of %d idle seconds, and for %v without the daemon", with, seconds, without)
	if with > without+time.Duration(seconds)*time.Millisecond {
		t.Errorf("PID 1 ran for %v of %d idle seconds, %v without the daemon", with, seconds, without)
	}
	name := h.busName(h.property("MainPID"))
	before := h.status()
	out := h.must("sh", "-c", `timeout "$1" busctl --match="sender='$2'" --match="destination='$2'" monitor; true`, "sh", strconv.Itoa(seconds), name)
	calls := strings.Count(out, "Type=method_call")
	after := h.status()
	t.Logf("%d method calls in %d idle seconds, %d signals", calls, seconds, strings.Count(out, "Type=signal"))
	if calls > 0 || after.Tracking.Sources["calls"] != before.Tracking.Sources["calls"] {
		t.Errorf("systemd was asked:\n%s", out)
	}
	// That the monitor sees what there is to see, once it listens.
	h.eventually(time.Minute, "the monitor sees a call of others", func() bool {
		out = h.must("sh", "-c", `timeout 3 busctl --match="destination='org.freedesktop.systemd1'" monitor &
for i in 1 2 3 4 5 6 7 8 9 10; do busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager GetUnit s dbus.service; done; wait; true`)
		return strings.Contains(out, "Type=method_call")
	})
}

// Nothing that we ask makes systemd load a unit. It says so of each that it does, and
// of what is configured, running, asked for or named like a unit here, none. edge T15
func TestLoadsNoUnits(t *testing.T) {
	h := install(t)
	h.echo()
	h.compileFirst()
	h.configure(strings.Replace(oldTOML, `["web.slice"]`, `["web.slice", "storm.slice", "ghost.slice", "ghost-a.slice"]`, 1) + `
[vip.units]
frontends = ["10.96.0.11:7000"]
backend = [
	{ unit = "ghost.service", address = "127.0.0.1:7001" },
	{ unit = "never@*.service", address = "127.0.0.1:%i" },
	{ unit = "first-*@*.service", address = "127.0.0.1:%i" },
]
`)
	h.start()
	h.healthy()
	monitor := h.Command(context.Background(), "busctl", "--match=type='signal',member='UnitNew'", "monitor")
	out := &watched{grown: make(chan struct{}, 1)}
	monitor.Stdout = out
	if err := monitor.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { monitor.Process.Kill(); monitor.Wait() })
	loaded := func() string {
		out.mu.Lock()
		defer out.mu.Unlock()
		return out.text.String()
	}
	control := 0
	heard := func() { // what was said before this has been heard
		h.t.Helper()
		control++
		name := fmt.Sprintf("control%d.service", control)
		h.eventually(20*time.Second, "the monitor hears of "+name, func() bool {
			h.must("systemctl", "show", "--property=LoadState", name) // loads it, and lets it go
			return strings.Contains(loaded(), name)
		})
	}
	heard()

	// Directories whose names are those of units that systemd does not have, a daemon
	// that starts, that reads its configuration again, and that is asked.
	n := max(20, scale.Count(1000))
	h.must("sh", "-c", fmt.Sprintf(`for i in $(seq %d); do mkdir -p /sys/fs/cgroup/web.slice/ghost$i.scope /sys/fs/cgroup/web.slice/ghost$i.service; done`, n))
	t.Cleanup(func() {
		h.Run(context.Background(), "find", "/sys/fs/cgroup/web.slice", "-mindepth", "1", "-name", "ghost*", "-type", "d", "-delete")
	})
	calls := h.status().Tracking.Sources["calls"]
	h.eventually(2*time.Minute, "systemd is asked for names", func() bool { return h.status().Tracking.Sources["calls"] > calls })
	h.must("systemctl", "restart", unit)
	h.healthy()
	h.must("slicelb", "reload")
	for _, name := range []string{"ghost1.service", "ghost.slice", "never.service"} {
		h.exit("slicelb", "explain", vip, "--unit", name)
	}
	h.must("slicelb", "group", "show", "web")
	if _, out := h.exit("slicelb", "doctor", "--cgroup-root", "/sys/fs/cgroup"); !strings.Contains(out, "not known: ghost-a.slice, ghost.slice") {
		t.Errorf("doctor says:\n%s", out)
	}
	h.settled()

	// Units that come and go: who asks of one that is gone has it loaded once more.
	storm := max(20, scale.Count(1000))
	calls = h.status().Tracking.Sources["calls"]
	h.run("units", vip, strconv.Itoa(storm), "storm.slice", "", "")
	h.eventually(time.Minute, "systemd is asked of units", func() bool { return h.status().Tracking.Sources["calls"] > calls })
	h.settled()
	heard()
	times := map[string]int{}
	for line := range strings.Lines(loaded()) {
		if name := strings.TrimSpace(line); strings.Contains(name, "STRING") && strings.Contains(name, "first-") {
			times[name]++
		}
	}
	if len(times) != storm {
		t.Errorf("%d units were heard of, want %d", len(times), storm)
	}
	for name, n := range times {
		if n > 1 {
			t.Errorf("systemd has loaded %s %d times", name, n)
		}
	}
	for line := range strings.Lines(loaded()) {
		if strings.Contains(line, "STRING") && (strings.Contains(line, "ghost") || strings.Contains(line, "never") || strings.Contains(line, "web.slice")) {
			t.Errorf("systemd has loaded %s", strings.TrimSpace(line))
		}
	}
}

// What comes and goes while the daemon is away: what is gone has no entry any more,
// what came has one, and nobody in the group is without it meanwhile. edge T23
func TestAwayMeanwhile(t *testing.T) {
	h := identify(t)
	h.start()
	h.healthy()
	s := h.sample("/web.slice")
	n := max(50, scale.Count(1000))
	h.run("crowd", "make", "fresh.slice", strconv.Itoa(n))
	h.converges("made")
	h.dropin("away", "[Service]\nRestartSec=5s\n") // until when the store is kept
	h.must("systemctl", "daemon-reload")
	h.must("systemctl", "kill", "--signal=STOP", "--kill-who=main", unit)
	h.run("stale", h.property("MainPID"), strconv.Itoa(n))
	h.must("systemctl", "kill", "--signal=KILL", "--kill-who=main", unit)
	h.eventually(10*time.Second, "the daemon is gone", func() bool { return h.property("MainPID") == "0" })
	h.run("crowd", "remove", "fresh.slice", strconv.Itoa(n))
	h.run("crowd", "make", "nomad.slice", strconv.Itoa(n))
	t.Cleanup(func() { h.run("crowd", "remove", "nomad.slice", strconv.Itoa(n)) })
	h.eventually(30*time.Second, "the daemon is back", func() bool { return h.status() != nil })
	if st := h.healthy(); !st.DataPlane.Adopted {
		t.Errorf("not adopted: %q", st.Notes)
	}
	h.converges("after the absence")
	if got := h.must("slicelb", "dump", "maps"); strings.Count(got, " cgroup ") < n {
		t.Errorf("%d cgroups", strings.Count(got, " cgroup "))
	}
	s.steady()
}
