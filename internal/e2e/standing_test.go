package e2e

import (
	"testing"
	"time"
)

// Since when a backend that nobody checks stands as it does is the same after restarts,
// kills and reloads: since it was configured, or since it is ready again.
func TestStandingOverRestarts(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	since := func() (times []time.Time) {
		t.Helper()
		for _, b := range h.vip().Backends {
			times = append(times, b.Since)
		}
		if len(times) != 2 || times[0].IsZero() || times[1].IsZero() {
			t.Fatalf("the backends stand since %v", times)
		}
		return times
	}
	first := h.vip().Backends[0].Address
	configured := since()
	h.must("slicelb", "backend", "drain", "db", first)
	drained := since()
	h.must("slicelb", "backend", "ready", "db", first)
	ready := since()
	if !drained[0].After(configured[0]) || !ready[0].After(drained[0]) {
		t.Errorf("configured %v, drained %v, ready %v", configured[0], drained[0], ready[0])
	}
	// Long enough for another moment to be told from what two clocks, read one after the
	// other on a busy machine, are apart.
	h.eventually(2*time.Second, "a second has passed", func() bool { return time.Since(ready[0]) > time.Second })
	for what, change := range map[string]func(){
		"a restart": func() { h.must("systemctl", "restart", unit) },
		"a kill":    func() { h.kill("KILL") },
		"a reload": func() {
			h.configure(oldTOML + "\n[group.other]\nslices = [\"other.slice\"]\n")
			h.must("systemctl", "reload", unit)
		},
	} {
		change()
		h.healthy()
		for i, now := range since() {
			if d := now.Sub(ready[i]).Abs(); d > 500*time.Millisecond {
				t.Errorf("after %s: backend %d stands since %v, was %v", what, i, now, ready[i])
			}
		}
	}
}
