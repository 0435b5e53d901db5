package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/scale"
)

// The message bus is killed again and again under load: each time the daemon is
// connected and subscribed again, by itself, and a scope that was made in the gap is
// there. fault F6, edge T9, edge T12
func TestBusRestarts(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.aloneOnTheBus()
	h.start()
	before := h.healthy()
	l := h.load(oldOnes...)
	s := h.sample("/web.slice")
	n := max(3, scale.Count(20))
	var took, mapped []time.Duration
	for i := range n {
		connects := h.status().Tracking.Sources["connects"]
		h.exit("systemctl", "reset-failed", "dbus.service") // or its start limit would be hit
		h.must("systemctl", "kill", "--signal=KILL", "dbus.service")
		begun := time.Now()
		scope := h.play(fmt.Sprintf("/web.slice/gap-%d.scope", i), "load", append([]string{vip, "1"}, oldOnes...)...)
		made := time.Now()
		h.eventually(20*time.Second, "the scope of the gap is known", func() bool { return h.knows(fmt.Sprintf("/web.slice/gap-%d.scope", i)) })
		mapped = append(mapped, time.Since(made))
		h.eventually(20*time.Second, "connected and subscribed again", func() bool {
			st := h.status()
			return st != nil && st.Tracking.Mode == "bus" && st.Tracking.Sources["connects"] > connects
		})
		took = append(took, time.Since(begun))
		// And signals arrive: this one is of a unit that systemd names.
		heard := h.status().Tracking.Sources["signals"]
		h.must("systemctl", "start", fmt.Sprintf("gap-%d.slice", i))
		h.eventually(20*time.Second, "signals arrive", func() bool { return h.status().Tracking.Sources["signals"] > heard })
		h.must("systemctl", "stop", fmt.Sprintf("gap-%d.slice", i))
		scope.stdin.Close()
		scope.cmd.Wait()
	}
	h.within(time.Second, "subscribed again after the bus was killed", took)
	h.within(time.Second, "a scope made in the gap is known", mapped)
	s.steady()
	after := h.healthy()
	if got := after.Tracking.Sources["connects"] - before.Tracking.Sources["connects"]; got < uint64(n) {
		t.Errorf("%d connections for %d restarts", got, n)
	}
	if after.PID != before.PID {
		t.Errorf("another daemon: %d, was %d", after.PID, before.PID)
	}
	l.flawless()
}

// aloneOnTheBus keeps logind away, until the test ends: systemd says everything to all
// while it has one subscriber.
func (h *host) aloneOnTheBus() {
	h.t.Helper()
	const logind = "systemd-logind.service"
	h.t.Cleanup(func() {
		h.Run(context.Background(), "systemctl", "unmask", "--runtime", logind)
		h.Run(context.Background(), "systemctl", "start", logind)
	})
	h.must("systemctl", "mask", "--runtime", "--now", logind)
}

// knows reports whether the daemon lists a cgroup in the group web.
func (h *host) knows(path string) bool {
	h.t.Helper()
	return strings.Contains(h.must("slicelb", "group", "show", "web"), path)
}
