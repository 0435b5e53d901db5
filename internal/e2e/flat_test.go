package e2e

import (
	"strconv"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/internal/scale"
)

// descriptors is how many the daemon has open.
func (h *host) descriptors() int {
	h.t.Helper()
	return len(strings.Fields(h.must("ls", "/proc/"+h.property("MainPID")+"/fd")))
}

// Scopes come and go for a long time, by mkdir and by way of systemd: memory,
// descriptors and the kernel's table stay as they are. edge T25
func TestFlat(t *testing.T) {
	h := identify(t)
	h.compileFirst()
	h.start()
	h.healthy()
	// As many as 200 a second make in ten minutes, at three times that pace.
	const rate = 600
	total, rounds := scale.Count(120_000), 4
	type use struct{ anon, fds, entries int }
	var uses []use
	for range rounds {
		churn := h.churn(rate, total/rounds)
		units := max(10, scale.Count(1000)/rounds)
		got := h.answered("units", h.run("units", vip, strconv.Itoa(units), "web.slice", "", ""))
		h.right("units meanwhile", got, "127.0.0.1:7001", units)
		if pace := h.pace(churn); pace < rate/3 {
			t.Errorf("%d scopes a second", pace)
		}
		h.converges("the last scopes of a round")
		churn.stdin.Close()
		churn.end(h)
		h.converges("after a round")
		uses = append(uses, use{h.memory("RssAnon"), h.descriptors(), strings.Count(h.must("slicelb", "dump", "maps"), " cgroup ")})
	}
	t.Logf("%d scopes by mkdir and %d by systemd, in %d rounds:", total, rounds*max(10, scale.Count(1000)/rounds), rounds)
	for i, u := range uses {
		t.Logf("round %d: %.1f MiB anonymous, %d descriptors, %d entries", i+1, float64(u.anon)/(1<<20), u.fds, u.entries)
	}
	first, last := uses[0], uses[len(uses)-1]
	if last.entries > first.entries+3 || last.entries == 0 { // a unit may be on its way out
		t.Errorf("%d entries, %d at first", last.entries, first.entries)
	}
	if last.fds > first.fds+8 { // a request may be on its way
		t.Errorf("%d descriptors, %d at first", last.fds, first.fds)
	}
	if last.anon > first.anon+16<<20 {
		t.Errorf("%d MiB, %d at first", last.anon>>20, first.anon>>20)
	}
	if s := h.status(); s.Tracking.Sources["kernel_lost"] != 0 {
		t.Errorf("%d lost hints", s.Tracking.Sources["kernel_lost"])
	}
}
