package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/lab"
	"github.com/slicelb/slicelb/internal/scale"
)

// crowd makes n scopes below a slice, a thousand in each of its slices, and
// removes them when the test ends. They are empty: systemd hears of none.
func (h *host) crowd(slice string, n int) {
	h.t.Helper()
	h.run("crowd", "make", slice, strconv.Itoa(n))
	h.t.Cleanup(func() { h.run("crowd", "remove", slice, strconv.Itoa(n)) })
}

// memory is a field of the daemon's /proc/PID/status, in bytes.
func (h *host) memory(field string) int {
	h.t.Helper()
	for line := range strings.Lines(h.must("cat", "/proc/"+h.property("MainPID")+"/status")) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				h.t.Fatal(err)
			}
			return n << 10
		}
	}
	h.t.Fatalf("no %s", field)
	return 0
}

// walks is how long find takes to walk the tree, the same look at the same cgroups:
// what a time of the daemon's is to be held against on a machine that is not idle.
func (h *host) walks() time.Duration {
	h.t.Helper()
	begun := time.Now()
	h.must("find", lab.CgroupRoot, "-type", "d", "-name", "none")
	return time.Since(begun)
}

// A host with a hundred thousand cgroups below one group: the daemon starts,
// and starts again, within seconds and a bounded memory. fault F11
func TestCrowd(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	n := scale.Count(100_000)
	h.crowd("web.slice", n)
	for _, what := range []string{"a first start", "a restart"} {
		walk := h.walks()
		begin := time.Now()
		h.must("systemctl", "restart", unit)
		took := time.Since(begin)
		walk = min(walk, h.walks())
		s := h.healthy()
		if s.Tracking.Members < n {
			t.Errorf("%s: %d members, want %d", what, s.Tracking.Members, n)
		}
		// The kernel's tables are mapped, and as large on an empty host: they count as
		// resident, and not as the daemon's own.
		most, own := h.memory("VmHWM"), h.memory("RssAnon")
		t.Logf("%s with %d cgroups: ready after %v, %.1f times as long as find -type d walks them (%v); %d MiB of its own, %d MiB resident at most",
			what, n, took.Round(time.Millisecond), took.Seconds()/walk.Seconds(), walk.Round(time.Millisecond), own>>20, most>>20)
		if own > 128<<20 {
			t.Errorf("%s: %d MiB", what, own>>20)
		}
		if scale.Factor() >= 1 && took > 3*time.Second {
			t.Errorf("%s took %v", what, took)
		}
		if got := h.ask(fmt.Sprintf("/web.slice/web-0.slice/s%d.scope/deep", 7)); strings.Trim(got, "0127.: ") != "" {
			t.Errorf("%s: %s", what, got)
		}
	}
}
