package live

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/kerneltest"
)

// A backend that was never checked says nothing, and its check's timeout is an hour: a
// start and a reload are done all the same, and other VIPs' backends come and go
// meanwhile.
func TestMuteBackend(t *testing.T) {
	h := newHost(t)
	s := h.newStore()
	a, b := kerneltest.Serve(t, "a", "127.0.0.1:0"), kerneltest.Serve(t, "b", "127.0.0.1:0")
	mute := func() string { // connections are established, and nobody speaks
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.Addr().String()
	}
	conf := func(slow ...string) string {
		return vipOf("web", `"`+vip+`"`, "", a.Addr.String(), b.Addr.String()) +
			"[vip.web.health]\ninterval = \"200ms\"\ntimeout = \"100ms\"\n" +
			vipOf("slow", `"10.96.0.11:80"`, "", slow...) +
			"[vip.slow.health]\ntype = \"http\"\ninterval = \"1h\"\ntimeout = \"1h\"\n"
	}
	c := kerneltest.Start(t, h.root)
	h.slicelb("version") // it is built
	ready := func(s *api.Status) bool { return s.DataPlane.Attached && s.State == api.OK }
	restart := func() {
		s.kill()
		h.await("it answers", func(*api.Status) bool { return true })
	}
	turn := 0
	// An order is done, and calls say so: within this time, and the slowest machine's.
	within := func(what string, most time.Duration, f func()) {
		t.Helper()
		begun := time.Now()
		f()
		out, other := a, b
		if turn++; turn%2 == 0 {
			out, other = b, a
		}
		h.slicelb("backend", "ready", "web", other.Addr.String())
		h.slicelb("backend", "maint", "web", out.Addr.String())
		took := time.Since(begun)
		h.until("the other is up", func() bool { return who(t, c) == other.Name }, h.log.String)
		t.Logf("%s: an order was done after %v", what, took)
		if took > most+3*time.Second {
			t.Errorf("%s: an order was done after %v, want %v", what, took, most)
		}
	}
	const start, reload = 5 * time.Second, 10 * time.Second // at most, as the manual says
	first := mute()
	within("a first start", 30*time.Second, func() { // the programs load, too
		h.configure(conf(first))
		h.launch()
		h.await("ready", ready)
	})
	second := mute()
	within("a reload", reload, func() { h.reload(conf(first, second)) })
	within("a restart with nothing but such", start, restart)

	good := httpServer(t)
	h.reload(conf(good))
	h.until("it is up", func() bool { return h.backend("slow", good).Share > 0 }, h.log.String)
	within("a restart with another such", 0, func() {
		h.configure(conf(good, mute()))
		restart()
	})
}

// httpServer answers requests with 200.
func httpServer(t *testing.T) string {
	t.Helper()
	s := &served{addr: kerneltest.FreePort(t)}
	s.run(t)
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait() // killed: its status is known
	})
	return fmt.Sprint(s.addr)
}
