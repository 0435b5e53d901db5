package live

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/kerneltest"
)

// waiting is a "backend drain --wait" that is under way.
type waiting struct {
	*host
	said bytes.Buffer
	over chan error
}

func (h *host) wait(args ...string) *waiting {
	h.Helper()
	w := &waiting{host: h, over: make(chan error, 1)}
	cmd := h.command(append([]string{"backend", "drain", "--wait"}, args...)...)
	cmd.Stderr = &w.said
	if err := cmd.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = cmd.Process.Kill() }) // where it waits still
	go func() { w.over <- cmd.Wait() }()
	return w
}

// goesOn checks that the wait does not end within d.
func (w *waiting) goesOn(d time.Duration) {
	w.Helper()
	select {
	case err := <-w.over:
		w.Fatalf("ended with a connection open: %v\n%s", err, w.said.String())
	case <-time.After(d): // it would have ended
	}
}

// ends checks how.
func (w *waiting) ends(status int, text string) {
	w.Helper()
	select {
	case err := <-w.over:
		got := 0
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			got = exit.ExitCode()
		} else if err != nil {
			w.Fatal(err)
		}
		if got != status || !strings.Contains(w.said.String(), text) {
			w.Errorf("exit status %d, want %d, with %q:\n%s", got, status, text, w.said.String())
		}
	case <-time.After(30 * time.Second):
		w.Error("the wait does not end")
	}
}

// A wait goes on while the daemon is killed and starts, and while it is away; it ends
// when the last connection does, or when waiting is of no use any more. edge D36
func TestWaitOverRestarts(t *testing.T) {
	h := newHost(t)
	s := h.newStore()
	a, b := kerneltest.Serve(t, "a", "127.0.0.1:0"), kerneltest.Serve(t, "b", "127.0.0.1:0")
	both := vipOf("web", `"`+vip+`"`, "", a.Addr.String(), b.Addr.String())
	h.configure(both)
	h.launch()
	drained := func(b api.Backend) bool { return b.Order == "drain" }
	awaitOrder := func(ok func(api.Backend) bool) {
		t.Helper()
		h.await("the order", func(*api.Status) bool { return ok(h.backend("web", a.Addr.String())) })
	}
	c := kerneltest.Start(t, h.root)
	conn := reach(t, "a", openTCP(t, c))

	w := h.wait("web", a.Addr.String(), "--timeout", "5m")
	awaitOrder(drained)
	for range 5 {
		s.kill()
		h.await("ready again", func(s *api.Status) bool { return s.State == api.OK })
		w.goesOn(200 * time.Millisecond)
	}
	s.end()
	w.goesOn(4 * time.Second) // it is away for longer than a restart
	s.again()
	h.await("it is back", func(s *api.Status) bool { return s.State == api.OK })
	w.goesOn(200 * time.Millisecond)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	w.ends(0, "waiting all the same")

	h.slicelb("backend", "ready", "web", a.Addr.String())
	reach(t, "a", openTCP(t, c))
	w = h.wait("web", a.Addr.String())
	awaitOrder(drained)
	w.goesOn(200 * time.Millisecond)
	h.slicelb("backend", "ready", "web", a.Addr.String())
	w.ends(1, "is ready again, or gone")

	w = h.wait("web", a.Addr.String())
	awaitOrder(drained)
	w.goesOn(200 * time.Millisecond)
	h.reload(vipOf("web", `"`+vip+`"`, "", b.Addr.String()))
	w.ends(1, "is ready again, or gone")
}
