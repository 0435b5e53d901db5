package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fake answers with what its name says.
type fake struct {
	Daemon // what is not asked for in a test panics
	reload func(context.Context) (*Reloaded, error)
	set    func(BackendChange)
}

func (f fake) Status(context.Context) (*Status, error) { return &Status{State: OK, PID: 7}, nil }

func (f fake) VIP(_ context.Context, name string) (*VIP, error) {
	return nil, &Error{Code: NotFound, Text: fmt.Sprintf("no VIP %q", name), Hint: "look elsewhere"}
}

func (f fake) Group(_ context.Context, name string) (*Group, error) { return &Group{Name: name}, nil }

func (f fake) Explain(_ context.Context, q Question) (*Explanation, error) {
	x := &Explanation{Address: q.Address, Cgroup: q.Cgroup, Gone: q.Process}
	for _, id := range q.IDs {
		x.Ancestors = append(x.Ancestors, Ancestor{ID: id})
	}
	return x, nil
}

func (f fake) Reload(ctx context.Context) (*Reloaded, error) { return f.reload(ctx) }

func (f fake) SetBackend(_ context.Context, b BackendChange) (*BackendChanged, error) {
	f.set(b)
	return &BackendChanged{Before: OrderReady}, nil
}

func serve(t *testing.T, d Daemon) string {
	t.Helper()
	return serveWith(t, &Server{Daemon: d})
}

func serveWith(t *testing.T, s *Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	ln, err := Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s.Log = slog.New(slog.DiscardHandler)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket is left")
		}
	})
	return path
}

func TestAnswers(t *testing.T) {
	ctx := t.Context()
	c := NewClient(serve(t, fake{reload: func(context.Context) (*Reloaded, error) {
		return nil, fmt.Errorf("reload: %w", &Error{Code: BadConfig, Text: "line 1\nline 2"})
	}}))
	s, err := c.Status(ctx)
	if err != nil || s.PID != 7 {
		t.Errorf("Status = %+v, %v", s, err)
	}
	// Names of split children hold a slash.
	g, err := c.Group(ctx, `jobs/a\x2db.scope`)
	if err != nil || g.Name != `jobs/a\x2db.scope` {
		t.Errorf("Group = %+v, %v", g, err)
	}
	q := Question{Address: "[fd00::1]:53/udp", Cgroup: "/a b/?&=%.scope", Process: true, IDs: []uint64{7, 1<<64 - 1}}
	x, err := c.Explain(ctx, q)
	if err != nil || x.Address != q.Address || x.Cgroup != q.Cgroup || !x.Gone || len(x.Ancestors) != 2 || x.Ancestors[1].ID != q.IDs[1] {
		t.Errorf("Explain = %+v, %v", x, err)
	}
	var e *Error
	if _, err := c.VIP(ctx, "db"); !errors.As(err, &e) {
		t.Errorf("VIP: %v, want an *Error", err)
	}
	if diff := cmp.Diff(&Error{Code: NotFound, Text: `no VIP "db"`, Hint: "look elsewhere"}, e); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
	if _, err := c.Reload(ctx, time.Second); !errors.As(err, &e) || e.Code != BadConfig || e.Text != "line 1\nline 2" {
		t.Errorf("Reload: %v", err)
	}
}

// A change says which backends it is about, and whose wish it is: here the user
// who runs the test, who may be root, so the server is asked for another as well.
func TestSetBackend(t *testing.T) {
	var got BackendChange
	c := NewClient(serve(t, fake{set: func(b BackendChange) { got = b }}))
	for _, want := range []BackendChange{
		{VIP: "db", Address: "[2001:db8::11]:5432", State: OrderDrain},
		{Unit: `a/b\x2d@1.service`, State: OrderReady},
		{VIP: "db", Address: "192.0.2.11:5432", State: OrderMaint, Wait: 1500 * time.Millisecond, Force: true},
	} {
		b, err := c.SetBackend(t.Context(), want)
		if err != nil || b.Before != OrderReady {
			t.Errorf("SetBackend(%+v) = %+v, %v", want, b, err)
		}
		want.UID = uint32(os.Geteuid())
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	s := &Server{Daemon: fake{set: func(b BackendChange) { got = b }}}
	for _, bad := range []string{"timeout=0s", "timeout=11m", "timeout=soon", "force=yes"} {
		var e *Error
		if _, err := s.setBackend(httptest.NewRequest("POST", "/?"+bad, nil), peer{}); !errors.As(err, &e) || e.Code != BadRequest {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := s.setBackend(httptest.NewRequest("POST", "/", nil), peer{uid: 7}); err != nil || got.UID != 7 {
		t.Errorf("uid %d, %v", got.UID, err)
	}
}

func TestNotRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	if _, err := NewClient(path).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	if _, err := NewClient(path).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("stale socket: %v", err)
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	first, err := Listen(path, os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, %v, want 0660", info.Mode(), err)
	}
	if _, err := Listen(path, -1); err == nil || !strings.Contains(err.Error(), "another process answers there") {
		t.Errorf("second: %v", err)
	}
	// What a killed daemon leaves is replaced.
	first.(*listener).SetUnlinkOnClose(false)
	first.Close()
	second, err := Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	// What is no socket is not.
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, -1); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("file in the way: %v", err)
	}
}

// A reload has as long as its caller waits, and no longer.
func TestReloadTimeout(t *testing.T) {
	c := NewClient(serve(t, fake{reload: func(ctx context.Context) (*Reloaded, error) {
		<-ctx.Done()
		return nil, Errorf(Timeout, "not done in time")
	}}))
	var e *Error
	if _, err := c.Reload(t.Context(), 20*time.Millisecond); !errors.As(err, &e) || e.Code != Timeout {
		t.Errorf("Reload: %v", err)
	}
}

func TestHostileClients(t *testing.T) {
	path := serve(t, fake{})
	ask := func(t *testing.T, request string) string {
		t.Helper()
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		go io.WriteString(conn, request) // the server may stop reading
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			// A server that hangs up with bytes unread resets the connection.
			return ""
		}
		return strings.TrimSpace(line)
	}
	for _, test := range []struct{ name, request, want string }{
		{"good", "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK"},
		{"no such path", "GET /v2/status HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 Not Found"},
		{"reading does not change", "GET /v1/reload HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"},
		{"long body", "GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n" + strings.Repeat("x", maxBody+1), "HTTP/1.1 413 Request Entity Too Large"},
		{"long header", "GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 1<<20), "HTTP/1.1 431 Request Header Fields Too Large"},
		{"no HTTP", "\x00\x01\x02\r\n\r\n", "HTTP/1.1 400 Bad Request"},
		{"bad timeout", "POST /v1/reload?timeout=1000h HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := ask(t, test.request); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A path that does not have the method says which it has; one that is none is not
// found, whatever the method. Nobody is asked who they are for that.
func TestMethods(t *testing.T) {
	h := (&Server{Daemon: fake{}, Metrics: http.NotFoundHandler(), Log: slog.New(slog.DiscardHandler)}).routes()
	const read, change = "GET, HEAD", "POST"
	for _, test := range []struct {
		request, allow string // "" = there is no such path
	}{
		{"POST /v1/status", read}, {"DELETE /v1/status", read}, {"OPTIONS /v1/top", read}, {"get /v1/status", read},
		{"PUT /v1/vips/db", read}, {"PATCH /v1/groups/jobs/x.scope", read}, {"POST /v1/groups/jobs/x.scope", read}, {"POST /v1/observe", read},
		{"POST /metrics", read}, {"DELETE /v1/vips/db/backends/192.0.2.1:80/live", "GET, HEAD, POST"},
		{"GET /v1/reload?timeout=1s", change}, {"HEAD /v1/reload", change},
		{"DELETE /v1/vips/db/backends/[fd00::1]:80/drain", change}, {"GET /v1/units/x.service/drain", change},
		{"POST /v1/nothing", ""}, {"GET /v1/nothing", ""}, {"POST /v1", ""}, {"DELETE /v2/status", ""}, {"PUT /", ""}, {"GET /", ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(strings.Fields(test.request)[0], strings.Fields(test.request)[1], nil))
		status, code := http.StatusMethodNotAllowed, WrongMethod
		if test.allow == "" {
			status, code = http.StatusNotFound, NotFound
		}
		var e Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); w.Code != status || err != nil || e.Code != code || w.Header().Get("Allow") != test.allow {
			t.Errorf("%s: status %d, Allow %q, %v, %s", test.request, w.Code, w.Header().Get("Allow"), err, w.Body)
		}
	}
}

// A user who holds every connection that is allowed takes none from root.
func TestConnectionsPerUser(t *testing.T) {
	l := &listener{users: map[uint32]int{}}
	for i := range maxUserConn {
		if !l.admit(1000) {
			t.Fatalf("connection %d of uid 1000 refused", i)
		}
	}
	if l.admit(1000) {
		t.Error("uid 1000 has more connections than it may")
	}
	if !l.admit(1001) || !l.admit(0) {
		t.Error("another user is refused")
	}
	l.leave(1000)
	if !l.admit(1000) {
		t.Error("a connection that ended still counts")
	}
}

func TestExplainRefusesWhatIsNoID(t *testing.T) {
	if _, err := question(url.Values{"cgroup": {"/web.slice\x00"}}); err == nil || !strings.Contains(err.Error(), `cgroup "/web.slice\x00"`) {
		t.Errorf("a cgroup that no path can be: %v", err)
	}
	if _, err := question(url.Values{"id": {"7", "-1"}}); err == nil || !strings.Contains(err.Error(), `id "-1"`) {
		t.Errorf("%v", err)
	}
}
