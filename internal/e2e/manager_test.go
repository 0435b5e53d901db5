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
	before := h.settled()
	if before.Tracking.Anchors != n+1 {
		t.Errorf("%d anchors, want %d", before.Tracking.Anchors, n+1)
	}
	s := h.sample("/web.slice")
	const reloads = 5
	for range reloads {
		h.must("systemctl", "daemon-reload")
	}
	h.eventually(time.Minute, "two signals of each unit and reload were heard, and everything looked at", func() bool {
		st := h.status()
		return st != nil && st.Tracking.Sources["signals"] >= before.Tracking.Sources["signals"]+uint64(2*reloads*n) &&
			st.Tracking.Resync.Count > before.Tracking.Resync.Count
	})
	after := h.settled()
	s.steady()
	if after.DataPlane.Writes != before.DataPlane.Writes {
		t.Errorf("%d writes, %d before", after.DataPlane.Writes, before.DataPlane.Writes)
	}
	heard := after.Tracking.Sources["signals"] - before.Tracking.Sources["signals"]
	if lost := after.Tracking.Sources["kernel_lost"]; lost != 0 {
		t.Errorf("%d lost hints", lost)
	}
	t.Logf("%d daemon-reloads with %d slices: %d signals heard, no write", reloads, n, heard)
	l.flawless()
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

// When nothing happens, nothing is asked: not of systemd, not of the bus.
func TestIdle(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.settled()
	names := h.must("busctl", "--no-legend", "list")
	pid := h.property("MainPID")
	name := ""
	for line := range strings.Lines(names) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == pid && strings.HasPrefix(f[0], ":") {
			name = f[0]
		}
	}
	if name == "" {
		t.Fatalf("the daemon is not on the bus:\n%s", names)
	}
	seconds := max(3, scale.Count(60))
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
