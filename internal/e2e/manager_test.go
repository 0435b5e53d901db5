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
