package health

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// head reads a request's head.
func head(c net.Conn) string {
	var b strings.Builder
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "\r\n" {
			return b.String()
		}
	}
}

// says answers every request with a text.
func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		head(c)
		io.WriteString(c, text)
		io.Copy(io.Discard, c)
	}
}

var ok2xx = []Range{{200, 299}}

// timeoutFor is short only for a server that is to run into it: the others may share a
// busy machine.
func timeoutFor(want string) time.Duration {
	if strings.HasPrefix(want, "timeout") {
		return time.Second
	}
	return 10 * time.Second
}

func TestHTTP(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	var away atomic.Int32
	elsewhere := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) { away.Add(1) })
	for _, tt := range []struct {
		name  string
		serve func(net.Conn)
		want  string // of the error; "" = up
	}{
		{"200", says(ok), ""},
		{"without a reason", says("HTTP/1.0 204\n\n"), ""},
		{"in pieces", func(c net.Conn) {
			head(c)
			for _, b := range []byte(ok) {
				c.Write([]byte{b})
			}
			io.Copy(io.Discard, c)
		}, ""},
		{"before the request", func(c net.Conn) { io.WriteString(c, ok); io.Copy(io.Discard, c) }, ""},
		{"and closes", func(c net.Conn) { head(c); io.WriteString(c, ok) }, ""},
		{"after interim answers", says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + ok), ""},
		{"503", says("HTTP/1.1 503 Service Unavailable\r\n\r\n"), "status 503"},
		// threat: a backend may not send the checker elsewhere
		{"redirect", says("HTTP/1.1 302 Found\r\nLocation: http://" + elsewhere.String() + "/\r\n\r\n"), "status 302"},
		{"switching", says("HTTP/1.1 101 Switching Protocols\r\n\r\n"), "status 101"},
		{"not HTTP", says("SSH-2.0-x\r\n"), `it begins with "SSH-2.0-x\r\n"`},
		{"other version", says("HTTP/2 200\r\n"), "not HTTP/1"},
		{"bad status", says("HTTP/1.1 2x0 OK\r\n"), "unreadable"},
		{"short status", says("HTTP/1.1 20\r\n"), "unreadable"},
		{"long status", says("HTTP/1.1 2000\r\n"), "unreadable"},
		{"closes", func(c net.Conn) { head(c) }, "closed before there was an answer"},
		{"resets", func(c net.Conn) { head(c); c.(*net.TCPConn).SetLinger(0) }, "connection reset"},
		{"says nothing", func(c net.Conn) { io.Copy(io.Discard, c) }, "timeout: no answer"},
		{"interim without end", func(c net.Conn) {
			head(c)
			for {
				if _, err := io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
					return
				}
			}
		}, "no status in the first 4 KiB"},
		{"a line without end", says("HTTP/1.1 200 " + strings.Repeat("x", 1<<20)), "no status in the first 4 KiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			to := serve(t, "tcp", "127.0.0.1:0", tt.serve)
			r := once(t, Check{
				Type: HTTP, Path: "/", Expect: ok2xx, Interval: 5 * time.Second, Timeout: timeoutFor(tt.want), Fall: 1, Rise: 1,
			}, to)
			switch {
			case tt.want == "" && (r.State != Up || r.Err != nil):
				t.Errorf("%+v", r)
			case tt.want != "" && (r.State != Down || r.Err == nil || !strings.Contains(r.Err.Error(), tt.want)):
				t.Errorf("%+v, want %q", r, tt.want)
			}
		})
	}
	if away.Load() > 0 {
		t.Error("the redirect was followed")
	}
}

func TestRequest(t *testing.T) {
	for _, tt := range []struct {
		check Check
		to    string
		want  string
	}{
		{Check{Type: TCP}, "192.0.2.1:80", ""},
		{Check{Type: HTTP, Path: "/x?y"}, "192.0.2.1:80", "GET /x?y HTTP/1.1|Host: 192.0.2.1|User-Agent: slicelb|Accept: */*|Connection: close||"},
		{Check{Type: HTTPS, Path: "/"}, "[2001:db8::1]:443", "GET / HTTP/1.1|Host: [2001:db8::1]|User-Agent: slicelb|Accept: */*|Connection: close||"},
		{Check{Type: HTTP, Path: "/", Host: "::1"}, "[2001:db8::1]:80", "GET / HTTP/1.1|Host: [::1]|User-Agent: slicelb|Accept: */*|Connection: close||"},
		{Check{Type: HTTP, Path: "/", Host: "a:1", Headers: []Header{{"user-agent", "x"}, {"B", "c d"}}}, "192.0.2.1:8080", "GET / HTTP/1.1|Host: a:1|Accept: */*|user-agent: x|B: c d|Connection: close||"},
	} {
		to := netip.MustParseAddrPort(tt.to)
		if got := strings.ReplaceAll(string(request(&tt.check, to)), "\r\n", "|"); got != tt.want {
			t.Errorf("%s\nwant %s", got, tt.want)
		}
	}
	// What a server of the standard library makes of it.
	requests := make(chan *http.Request, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { requests <- r }))
	defer srv.Close()
	at := netip.MustParseAddrPort(srv.Listener.Addr().String())
	if r := once(t, Check{Type: HTTP, Path: "/a%20b?c", Host: "db.example.com", Expect: ok2xx, Headers: []Header{{"X-Probe", "1"}}}, at); r.State != Up {
		t.Fatalf("%+v", r)
	}
	if seen := <-requests; seen.Host != "db.example.com" || seen.URL.Path != "/a b" || seen.Header.Get("X-Probe") != "1" || !seen.Close {
		t.Errorf("%+v", seen)
	}
}

// What a server is told does not depend on what it answers; what is read does.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 404\n", "HTTP/1.1 100 C\r\na: b\r\n\r\nHTTP/1.1 204 N\r\n", "HTTP/1.1 \n"} {
		f.Add([]byte(s))
	}
	c := &Check{Expect: ok2xx}
	f.Fuzz(func(t *testing.T, b []byte) {
		done, err := answered(c, b)
		if !done && err != nil {
			t.Fatal("an error that is not final")
		}
		// A final word stays one, whatever follows.
		if more, again := answered(c, append(b[:len(b):len(b)], "\r\n\r\nHTTP/1.1 500 X\r\n"...)); done && (!more || fmt.Sprint(err) != fmt.Sprint(again)) && bytesWhole(b) {
			t.Fatalf("%q: %v, then %v", b, err, again)
		}
	})
}

// bytesWhole: the text ends with its line, so that what follows is no part of it.
func bytesWhole(b []byte) bool { return len(b) > 0 && b[len(b)-1] == '\n' }
