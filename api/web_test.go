package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// web serves a page on a port of its own.
func web(t *testing.T, s *Web) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if s.Picture == nil {
		s.Picture = func(context.Context) (*Picture, error) { return &Picture{State: OK}, nil }
	}
	if s.Metrics == nil {
		s.Metrics = &Kept{Type: "text/plain", Make: func(context.Context) ([]byte, error) { return []byte("metrics\n"), nil }}
	}
	s.Log = slog.New(slog.DiscardHandler)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
}

// say sends a request as it stands and returns the answer's head and body.
func say(t *testing.T, addr, request string) (status string, header http.Header, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, request)
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return err.Error(), nil, ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.Status, resp.Header, string(b)
}

func TestWeb(t *testing.T) {
	addr := web(t, &Web{})
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, request, want string }{
		{"page", "GET / HTTP/1.1\r\nHost: " + addr, "200 OK"},
		{"head", "HEAD / HTTP/1.1\r\nHost: " + addr, "200 OK"},
		{"script", "GET /page.js HTTP/1.1\r\nHost: localhost", "200 OK"},
		{"style", "GET /page.css HTTP/1.1\r\nHost: [::1]:9781", "200 OK"},
		{"metrics", "GET /metrics HTTP/1.1\r\nHost: " + strings.ToUpper(own) + ":9781", "200 OK"},
		{"picture", "GET /v1/picture HTTP/1.0", "200 OK"},
		{"a name of anybody's", "GET /v1/picture HTTP/1.1\r\nHost: rebound.example:9781", "421 Misdirected Request"},
		{"a name that begins like ours", "GET / HTTP/1.1\r\nHost: localhost.example", "421 Misdirected Request"},
		{"an address in a name", "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1.example:9781", "421 Misdirected Request"},
		{"no name", "GET / HTTP/1.1", "400 Bad Request: missing required Host header"},
		{"change", "POST /v1/reload?timeout=1s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0", "405 Method Not Allowed"},
		{"delete", "DELETE / HTTP/1.1\r\nHost: localhost", "405 Method Not Allowed"},
		{"body", "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", "413 Request Entity Too Large"},
		{"endless body", "GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked", "413 Request Entity Too Large"},
		{"the socket's requests", "GET /v1/status HTTP/1.1\r\nHost: localhost", "404 Not Found"},
		{"the socket's config", "GET /v1/config HTTP/1.1\r\nHost: localhost", "404 Not Found"},
		{"out of the folder", "GET /../page.go HTTP/1.1\r\nHost: localhost", "404 Not Found"},
		{"long header", "GET / HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 1<<16), "431 Request Header Fields Too Large"},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, header, _ := say(t, addr, test.request+"\r\n\r\n")
			if status != test.want && (test.name != "out of the folder" || !strings.HasPrefix(status, "307")) {
				t.Errorf("got %q, want %q", status, test.want)
			}
			if status != "200 OK" {
				return
			}
			if len(header["Set-Cookie"]) > 0 || header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("headers: %v", header)
			}
			csp := header.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
				if !strings.Contains(csp, want) || strings.Contains(csp, "unsafe") {
					t.Errorf("policy %q", csp)
				}
			}
		})
	}
}

// However many ask for it, an answer that costs something is made once a second.
func TestKept(t *testing.T) {
	var made atomic.Int32
	addr := web(t, &Web{Metrics: &Kept{Type: "text/plain", Make: func(context.Context) ([]byte, error) {
		return fmt.Appendf(nil, "made %d\n", made.Add(1)), nil
	}}})
	begun := time.Now()
	for range 200 {
		if status, _, body := say(t, addr, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"); status != "200 OK" || !strings.HasPrefix(body, "made ") {
			t.Fatalf("%s: %q", status, body)
		}
	}
	most := int32(time.Since(begun)/keepFor) + 1
	if n := made.Load(); n < 1 || n > most {
		t.Errorf("made %d times, want at most %d", n, most)
	}
	// Compressed, for who reads that.
	_, header, body := say(t, addr, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n")
	if header.Get("Content-Encoding") != "gzip" || !strings.HasPrefix(body, "\x1f\x8b") {
		t.Errorf("%v %q", header, body)
	}
}

// trickle opens a connection and sends a byte of a request that never ends, now
// and then, until the server has had enough.
func trickle(t *testing.T, network, addr string, ended chan<- error) {
	t.Helper()
	conn, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		defer conn.Close()
		for tick := time.Tick(20 * time.Millisecond); ; <-tick {
			if _, err := conn.Write([]byte("G")); err != nil {
				ended <- nil
				return
			}
			conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := conn.Read(make([]byte, 1)); err == io.EOF {
				ended <- nil
				return
			}
		}
	}()
}

// Clients that send a byte now and then are cut off; who comes with a whole
// request meanwhile is answered, also where they hold every connection.
func TestTrickle(t *testing.T) {
	short := bounds{header: 300 * time.Millisecond, read: 300 * time.Millisecond, write: time.Second, idle: time.Second}
	const clients = maxWebConns + 20
	check := func(t *testing.T, network, addr string) {
		ended := make(chan error, clients)
		for range clients {
			trickle(t, network, addr, ended)
		}
		conn, err := net.Dial(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("in between: %+v, %v", resp, err)
		}
		limit := time.After(20 * time.Second)
		for i := range clients {
			select {
			case <-ended:
			case <-limit:
				t.Fatalf("%d of %d clients are never cut off", clients-i, clients)
			}
		}
	}
	metrics := &Kept{Type: "text/plain", Make: func(context.Context) ([]byte, error) { return []byte("metrics\n"), nil }}
	t.Run("page", func(t *testing.T) { check(t, "tcp", web(t, &Web{Metrics: metrics, bounds: short})) })
	t.Run("socket", func(t *testing.T) {
		check(t, "unix", serveWith(t, &Server{Daemon: fake{}, Metrics: metrics, bounds: short}))
	})
}

// A client that asks and does not read holds nothing but its connection, and
// that for a while.
func TestNobodyReads(t *testing.T) {
	big := make([]byte, 32<<20)
	addr := web(t, &Web{
		Metrics: &Kept{Type: "text/plain", Make: func(context.Context) ([]byte, error) { return big, nil }},
		bounds:  bounds{write: 300 * time.Millisecond},
	})
	for range maxWebConns {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	if status, _, _ := say(t, addr, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); status != "200 OK" {
		t.Errorf("who comes then: %s", status)
	}
}
