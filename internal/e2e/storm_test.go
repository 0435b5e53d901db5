package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/scale"
)

const bound = 128 << 20 // bytes that the daemon may have resident

// Cgroups that come and go by the ten thousand each second: bounded memory, every
// connect in its group meanwhile, and what is there is known soon after.
// fault F10, edge T17
func TestStormOfCgroups(t *testing.T) {
	h := identify(t)
	h.start()
	h.healthy()
	s := h.sample("/web.slice")
	before := h.status()
	const rate = 10_000
	storm := h.play("/roles", "churn", "web.slice", strconv.Itoa(rate), strconv.Itoa(scale.Count(60*rate)))
	n := scale.Count(10_000)
	got := h.answered("in the storm", h.run("firsts", vip, strconv.Itoa(n), "web.slice", "run-%d.scope"))
	h.right("first instructions in the storm", got, "127.0.0.1:7001", n)
	pace := strings.TrimSpace(storm.end(h))
	took := h.converges("after the storm")
	if scale.Factor() >= 1 && took > 2*time.Second {
		t.Errorf("converged after %v", took)
	}
	s.steady()
	after := h.status()
	t.Logf("%s cgroups made and removed a second, %d in all: %d hints, %d overflows, %d walks, %d MiB resident at most", pace, scale.Count(60*rate),
		difference(before, after, "kernel"), difference(before, after, "overflows"), after.Tracking.Resync.Count-before.Tracking.Resync.Count, h.memory("VmHWM")>>20)
	if most := h.memory("VmHWM"); most > bound {
		t.Errorf("%d MiB resident", most>>20)
	}
}

func difference(before, after *api.Status, source string) uint64 {
	return after.Tracking.Sources[source] - before.Tracking.Sources[source]
}
