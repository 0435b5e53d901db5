package live

import (
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"testing"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// A group that asks for it has its split children told one by one in the metrics:
// the oldest, as many as it wants, whatever their names hold, until they go. The
// group's own count lacks nothing and never falls.
func TestSplitMetrics(t *testing.T) {
	h := newHost(t)
	const vip = "10.96.0.10:80"
	backend := kerneltest.Serve(t, "a", "127.0.0.1:0").Addr.String()
	conf := func(most int) string {
		return fmt.Sprintf("[group.jobs]\nslices = [\"jobs.slice\"]\nsplit = \"*.scope\"\nsplit_metrics = %d\n", most) +
			vipOf("db", strconv.Quote(vip), "", backend)
	}
	s := h.newStore()
	h.serve(conf(2))
	slice := h.root.Make(t, "jobs.slice")
	names := []string{"first.scope", "evil\xff\"}.scope", "third.scope"}
	var children []*kerneltest.Cgroup
	for _, name := range names {
		children = append(children, slice.Make(t, name))
	}
	c := kerneltest.Start(t, h.root)
	calls := func(g *kerneltest.Cgroup, n int) {
		t.Helper()
		if err := c.Enter(g); err != nil {
			t.Fatal(err)
		}
		for range n {
			if got := c.TCP(vip).Connect(vip); got != nil {
				t.Fatal(got)
			}
		}
	}
	line := regexp.MustCompile(`(?m)^slicelb_(split|group)_(?:calls_total|uncounted)\{(?:child="(.*)",)?group="jobs"(?:,verdict="connects",vip="db")?\} (\d+)$`)
	told := func(text string) map[string]string {
		got := map[string]string{}
		for _, m := range line.FindAllStringSubmatch(text, -1) {
			got[m[1]+m[2]] = m[3]
		}
		return got
	}
	has := func(when string, want map[string]string) {
		t.Helper()
		var text string
		h.until(when, func() bool {
			var err error
			if text, err = h.client.Metrics(t.Context()); err != nil {
				t.Fatal(err)
			}
			return maps.Equal(told(text), want)
		}, func() string { return text })
	}
	const evil = `split\"evil\\xff\\\"}.scope\"`
	has("two of three have metrics", map[string]string{"split": "1"})
	for i, g := range children {
		calls(g, i+1)
	}
	each := map[string]string{"split": "1", "group": "6", "splitfirst.scope": "1", evil: "2"}
	has("each is told", each)

	// The first that a process says is all of it.
	for range 5 {
		s.kill()
		var text string
		h.until("a scrape", func() (ok bool) {
			var err error
			text, err = h.client.Metrics(t.Context())
			return err == nil
		}, h.log.String)
		if got := told(text); !maps.Equal(got, each) {
			t.Errorf("after a restart: %v", got)
		}
	}

	if err := c.Enter(h.root); err != nil {
		t.Fatal(err)
	}
	children[0].Remove(t)
	has("the first is gone", map[string]string{"split": "0", "group": "6", evil: "2"})
	calls(children[2], 4)
	has("the third has its place", map[string]string{"split": "0", "group": "10", evil: "2", "splitthird.scope": "4"})
	h.reload(conf(1))
	has("fewer", map[string]string{"split": "1", "group": "10", evil: "2"})
	h.reload(conf(0))
	has("nobody asks", map[string]string{"group": "10"})
}
