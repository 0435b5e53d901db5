package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// freePort is an address at which nobody listens, most likely.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func withHTTP(addr string) string { return "[daemon]\nhttp = \"" + addr + "\"\n" + oneVIP }

// get asks until it is answered; "" = never.
func get(t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for tick := time.Tick(5 * time.Millisecond); ctx.Err() == nil; <-tick {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode == http.StatusOK {
			return string(body)
		}
	}
	t.Errorf("%s does not answer", url)
	return ""
}

// The page comes, moves and goes with the configuration.
func TestPageFollowsReloads(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	first, second := freePort(t), freePort(t)
	p := start(t, withHTTP(first), newMemoryPath(lbtest.DefaultLimits), nil)
	at := func(want string) func(*api.Status) bool {
		return func(s *api.Status) bool { return s.HTTP == want && s.State == api.OK }
	}
	p.await("the page", at(first))
	if text := get(t, "http://"+first+"/metrics"); !strings.Contains(text, `slicelb_vip_calls_total{verdict="connects",vip="db"} 0`) {
		t.Errorf("metrics:\n%s", text)
	}
	if text := get(t, "http://"+first+"/v1/picture"); !strings.Contains(text, `"192.0.2.1:80"`) {
		t.Errorf("picture: %s", text)
	}
	if text := get(t, "http://"+first+"/"); !strings.Contains(text, "<title>slicelb") {
		t.Errorf("page: %s", text)
	}

	reload := func(toml string) {
		t.Helper()
		p.configure(toml)
		if _, err := p.client.Reload(t.Context(), 20*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	reload(withHTTP(second))
	p.await("the page elsewhere", at(second))
	get(t, "http://"+second+"/metrics")
	if c, err := net.Dial("tcp", first); err == nil {
		c.Close()
		t.Error("the first address still answers")
	}
	// A broken file leaves it where it is.
	p.configure("nonsense = 1\n")
	if _, err := p.client.Reload(t.Context(), 20*time.Second); err == nil {
		t.Error("a bad reload succeeds")
	}
	get(t, "http://"+second+"/metrics")
	reload(oneVIP)
	p.await("no page", at(""))
	if c, err := net.Dial("tcp", second); err == nil {
		c.Close()
		t.Error("the second address still answers")
	}
}

// A port that is taken is a problem, and the daemon serves; when it is free, so
// is the page.
func TestPageCannotListen(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := ln.Addr().String()
	p := start(t, withHTTP(addr), newMemoryPath(lbtest.DefaultLimits), nil)
	s := p.await("a problem", func(s *api.Status) bool {
		return s.DataPlane.Attached && strings.Contains(strings.Join(s.Problems, "\n"), "the status page and the metrics are not served: listen tcp "+addr)
	})
	if s.HTTP != "" || s.State != api.Degraded {
		t.Errorf("http %q, state %s", s.HTTP, s.State)
	}
	ln.Close()
	p.await("the page", func(s *api.Status) bool { return s.HTTP == addr && s.State == api.OK })
}

// The socket has the metrics too, for its readers.
func TestMetricsOnTheSocket(t *testing.T) {
	p := start(t, oneVIP, newMemoryPath(lbtest.DefaultLimits), nil)
	p.await("well", well)
	text, err := p.client.Metrics(t.Context())
	if err != nil || !strings.Contains(text, "slicelb_attached 1\n") || !strings.Contains(text, `slicelb_table_entries{table="frontends"} 1`) ||
		!strings.Contains(text, `slicelb_table_capacity_entries{table="policy_lines"} `) {
		t.Errorf("%v\n%s", err, text)
	}
}

// What audits could not remember is missing from what is suggested: a note says so.
func TestNoteOfLostAudits(t *testing.T) {
	dp := newMemoryPath(lbtest.DefaultLimits)
	dp.stats.Store(&bpf.Stats{SeenFull: 3})
	p := start(t, oneVIP, dp, nil)
	p.await("a note", func(s *api.Status) bool {
		return strings.Contains(strings.Join(s.Notes, "\n"), "3 audited calls found no room in the table of what audits have seen")
	})
}

// Audits that begin find an empty table; those that go on, and those that end, leave it.
func TestAuditsBegin(t *testing.T) {
	dp := newMemoryPath(lbtest.DefaultLimits)
	p := start(t, oneVIP, dp, nil)
	p.await("well", well)
	rule := func(action string) string {
		return oneVIP + "[policy]\n[[policy.rule]]\nfrom = [\"any\"]\nto = [\"10.0.0.0/8\"]\naction = \"" + action + "\"\n"
	}
	for i, step := range []struct {
		toml   string
		forgot int64
	}{
		{rule("deny"), 0}, {rule("audit"), 1}, {rule("audit") + "[group.g]\nslices = [\"g.slice\"]\n", 1}, {rule("deny"), 1}, {oneVIP, 1}, {rule("audit"), 2},
	} {
		p.configure(step.toml)
		if _, err := p.client.Reload(t.Context(), 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if n := dp.forgot.Load(); n != step.forgot {
			t.Errorf("reload %d: the table was emptied %d times, want %d", i, n, step.forgot)
		}
	}
}

// The page explains each event that the programs count.
func TestPageOfEvents(t *testing.T) {
	page, err := os.ReadFile("../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	v := &view{dp: newMemoryPath(lbtest.DefaultLimits)}
	events, problems := v.events(nil)
	if len(events) == 0 || len(problems) > 0 {
		t.Fatalf("%v, %q", events, problems)
	}
	for name := range events {
		if !strings.Contains(string(page), "\n| `"+name+"` | ") {
			t.Errorf("docs/observability.md does not explain %s", name)
		}
	}
}

// What is advised is what helps: a drop-in where the unit refuses a port, another port
// where the kernel does.
func TestRefusedPort(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		unix.EACCES: "permission denied: the kernel keeps low ports to itself, usually those below 1024: take a higher one",
		unix.EPERM:  "operation not permitted: its unit allows port 9781 alone, SocketBindAllow=tcp:80 in a drop-in allows this one",

		unix.EADDRINUSE: "address already in use",
	} {
		if got := refusedPort(errno, 80); got.Error() != want || !errors.Is(got, errno) {
			t.Errorf("%v: %v", errno, got)
		}
	}
}
