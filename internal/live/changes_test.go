package live

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/internal/scale"
)

// away is a time in which a backend was out: from when that was acknowledged until
// it was asked back.
type away struct {
	server      string
	by          string
	from, until time.Duration // CLOCK_MONOTONIC
}

// changer takes backends out and in, one after the other, and remembers when.
type changer struct {
	*store
	servers []*kerneltest.Server
	ways    []string // by which each is out; "" = it is in
	out     []*away  // of each, now
	aways   []*away
	again   int // requests that had to be made again: there was no daemon
}

// change takes one backend out or in, by an order or by a reload. One is always
// left.
func (c *changer) change() {
	i := rand.IntN(len(c.servers))
	for c.ways[i] == "" && !slices.ContainsFunc(c.ways[:i], in) && !slices.ContainsFunc(c.ways[i+1:], in) {
		i = rand.IntN(len(c.servers))
	}
	if way := c.ways[i]; way != "" {
		c.out[i].until = kerneltest.Monotonic()
		c.ways[i] = ""
		c.do(i, way, orderOf(way, "ready"))
		return
	}
	way := []string{"drain", "maint", "removed"}[rand.IntN(3)]
	c.ways[i] = way
	c.do(i, way, orderOf(way, way))
	c.out[i] = &away{server: c.servers[i].Name, by: way, from: kerneltest.Monotonic()}
	c.aways = append(c.aways, c.out[i])
}

func in(way string) bool { return way == "" }

// orderOf is the order of a change; "" = it is made by a reload.
func orderOf(way, order string) string {
	if way == "removed" {
		return ""
	}
	return order
}

// do makes a change, again while there is no daemon.
func (c *changer) do(i int, way, order string) {
	c.Helper()
	if order == "" {
		c.configure(c.toml())
	}
	var last error
	c.until(way, func() bool {
		ctx, cancel := context.WithTimeout(c.Context(), 30*time.Second)
		defer cancel()
		if order == "" {
			_, last = c.client.Reload(ctx, 20*time.Second)
		} else {
			_, last = c.client.SetBackend(ctx, api.BackendChange{VIP: "web", Address: c.servers[i].Addr.String(), State: order})
		}
		if last != nil {
			c.again++
		}
		return last == nil
	}, func() string { return fmt.Sprint(last) })
}

// toml has the backends that are not removed, with other weights each time.
func (c *changer) toml() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[vip.web]\nfrontends = [%q]\n", vip)
	for i, s := range c.servers {
		if c.ways[i] != "removed" {
			fmt.Fprintf(&b, "[[vip.web.backend]]\naddress = %q\nweight = %d\n", s.Addr, 1+rand.IntN(5))
		}
	}
	return b.String()
}

// A thousand changes of backends, by orders and by reloads, while four clients
// connect without pause and the daemon is killed now and then: no connect fails,
// and none that began after a backend was said to be out goes there.
// edge D34, fault F1
func TestChanges(t *testing.T) {
	h := newHost(t)
	c := &changer{store: h.newStore(), ways: make([]string, 4), out: make([]*away, 4)}
	for i := range c.ways {
		c.servers = append(c.servers, kerneltest.Serve(t, fmt.Sprintf("s%d", i), "127.0.0.1:0"))
	}
	h.configure(c.toml())
	h.launch()

	l := h.load(4)
	changes := scale.Count(1000)
	kills, every := 0, max(5, changes/20)
	for n := range changes {
		if n%every == every-1 {
			kills++
			c.kill()
		}
		c.change()
	}
	made := l.end()
	h.await("adopted", func(s *api.Status) bool { return s.DataPlane.Adopted && s.DataPlane.Attached })

	connects, failed, late := 0, 0, 0
	for _, conn := range made {
		connects++
		if conn.Errno != 0 || conn.Server == "" {
			failed++
			t.Errorf("failed: %+v", conn)
			continue
		}
		for _, a := range c.aways {
			if a.server == conn.Server && conn.At > a.from && (a.until == 0 || conn.Until < a.until) {
				late++
				t.Errorf("to %s, which was out by %s since %v: %+v", a.server, a.by, conn.At-a.from, conn)
			}
		}
	}
	t.Logf("%d changes, %d kills, %d requests made again, %d connects: %d failed, %d to a backend that was out",
		changes, kills, c.again, connects, failed, late)
	if kills == 0 || connects == 0 {
		t.Error("nothing was shown")
	}
}
