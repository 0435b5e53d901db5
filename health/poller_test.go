package health

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// once checks one address and returns what came of it.
func once(t *testing.T, c Check, to netip.AddrPort) Result {
	t.Helper()
	if c.Interval == 0 {
		c.Interval, c.Timeout, c.Fall, c.Rise = 5*time.Second, 2*time.Second, 1, 1
	}
	checker := start(t)
	set := checker.Set([]Target{{VIP: "a", Addr: to, Check: &c}})
	deadline := time.After(20 * time.Second)
	for {
		select {
		case v := <-checker.Verdicts():
			if v.Set == set && v.Unchecked == 0 {
				return checker.Results()[Endpoint{"a", to}]
			}
		case <-deadline:
			t.Fatal("no verdict")
		}
	}
}

// start runs a checker until the test ends.
func start(t testing.TB) *Checker {
	t.Helper()
	checker := New()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- checker.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return checker
}

// barePoller is one that no checker uses.
func barePoller(t *testing.T) *poller {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tasks, ctx := errgroup.WithContext(ctx)
	p, err := newPoller(tasks, ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(tasks.Wait(), p.close()); err != nil {
			t.Error(err)
		}
	})
	return p.(*poller)
}

// serve runs f for each connection until the test ends.
func serve(t testing.TB, network, address string, f func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

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

// full is a listener that has no room for one more connection.
func full(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
	for range 8 {
		c, err := net.DialTimeout("tcp", at.String(), 100*time.Millisecond)
		if err != nil {
			return at
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("it has room without end")
	return at
}

func TestTCP(t *testing.T) {
	open := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) { io.Copy(io.Discard, c) })
	if r := once(t, Check{}, open); r.State != Up || r.Err != nil {
		t.Errorf("%+v", r)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	if r := once(t, Check{}, gone); r.State != Down || !errors.Is(r.Err, syscall.ECONNREFUSED) {
		t.Errorf("%+v", r)
	}
	r := once(t, Check{Interval: 5 * time.Second, Timeout: 200 * time.Millisecond, Fall: 1, Rise: 1}, full(t))
	if r.State != Down || !errors.Is(r.Err, errConnectTimeout) || r.Took < 200*time.Millisecond || r.Took > 2*time.Second {
		t.Errorf("%+v", r)
	}
	if ln, err := net.Listen("tcp", "[::1]:0"); err == nil {
		ln.Close()
		six := serve(t, "tcp", "[::1]:0", func(c net.Conn) { io.Copy(io.Discard, c) })
		if r := once(t, Check{}, six); r.State != Up {
			t.Errorf("%+v", r)
		}
	}
}

// A TCP check is over before the peer has a connection: no application there accepts one,
// or has its queue filled. A checker that does not run for 200 ms makes one after all.
func TestTCPUnseen(t *testing.T) {
	const checks = 50
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	checker := start(t)
	checker.Set([]Target{{VIP: "a", Addr: at, Check: &Check{Interval: 20 * time.Millisecond, Timeout: time.Second, Fall: 1, Rise: 1}}})
	for deadline := time.After(20 * time.Second); checker.Stats().Checks < checks; {
		select {
		case <-deadline:
			t.Fatalf("%+v", checker.Stats())
		case <-time.After(time.Millisecond):
		}
	}
	checker.Set(nil)
	last, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	for seen := 0; ; seen++ {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if c.RemoteAddr().String() != last.LocalAddr().String() {
			continue
		}
		if seen > checks/2 {
			t.Errorf("%d of %d checks became connections", seen, checks)
		}
		break
	}
	if s := checker.Stats(); s.Failed > 0 {
		t.Errorf("%+v", s)
	}
}

// Who was asked by one check cannot tell the sequence numbers of the next, which may ask
// another.
func TestSequence(t *testing.T) {
	p := barePoller(t)
	at := serve(t, "tcp", "127.0.0.1:0", func(net.Conn) {})
	seen := map[int]int{} // by descriptor
	for range 3 {
		f := &flight{probe: newProbe(Target{Addr: at, Check: &Check{}}, time.Now()), slot: -1}
		if p.start(f) {
			t.Fatal(f.err)
		}
		fd := p.conns[f.slot].fd
		if err := tellSequence(fd); errors.Is(err, unix.EPERM) {
			t.Skip("without CAP_NET_ADMIN no socket is used again")
		} else if err != nil {
			t.Fatal(err)
		}
		number, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		if err != nil {
			t.Fatal(err)
		}
		if last, ok := seen[fd]; ok && uint32(number-last) < 1<<17 {
			t.Errorf("%d follows %d", number, last)
		}
		seen[fd] = number
		for deadline := time.Now().Add(10 * time.Second); len(p.wait(time.Second)) == 0; {
			if time.Now().After(deadline) {
				t.Fatal("no end")
			}
		}
		if f.err != nil {
			t.Fatal(f.err)
		}
	}
	if len(seen) != 1 {
		t.Errorf("%d sockets for one check after the other", len(seen))
	}
}

// tellSequence has TCP_QUEUE_SEQ tell the number of what is sent next.
func tellSequence(fd int) error {
	for _, o := range [][2]int{{unix.TCP_REPAIR, unix.TCP_REPAIR_ON}, {unix.TCP_REPAIR_QUEUE, 2}, {unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP}} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, o[0], o[1]); err != nil {
			return err
		}
	}
	return nil
}

// A wake-up ends a wait that has begun and one that begins, with a socket under way and
// without one.
func TestWake(t *testing.T) {
	p := barePoller(t)
	late := func(what string, wake func()) {
		t.Helper()
		begun := time.Now()
		wake()
		p.wait(10 * time.Second)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("%s: it took %v", what, took)
		}
		p.poll(0) // what is left of it
		select {
		case <-p.woken:
		default:
		}
	}
	soon := func() { time.AfterFunc(20*time.Millisecond, p.wake) }
	late("no socket, before", p.wake)
	late("no socket, after", soon)
	f := &flight{probe: newProbe(Target{Addr: full(t), Check: &Check{}}, time.Now()), slot: -1}
	if p.start(f) {
		t.Fatal(f.err)
	}
	late("a socket, before", p.wake)
	late("a socket, after", soon)
	p.stop(f)
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

func TestHTTPS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(500)
		}
	}))
	srv.Config.ErrorLog = quiet(t)
	srv.StartTLS()
	defer srv.Close()
	to := netip.MustParseAddrPort(srv.Listener.Addr().String())
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate()) // for example.com, 127.0.0.1 and ::1
	trickle := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		for {
			if _, err := c.Write([]byte{22}); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // a slow server
		}
	})
	for _, tt := range []struct {
		name  string
		check Check
		to    netip.AddrPort
		want  string
	}{
		{"by address", Check{Roots: roots}, to, ""},
		{"by name", Check{Roots: roots, Host: "example.com"}, to, ""},
		{"by name and port", Check{Roots: roots, Host: "example.com:8443"}, to, ""},
		{"another name", Check{Roots: roots, Host: "example.org"}, to, "not example.org"},
		{"unknown authority", Check{Roots: x509.NewCertPool()}, to, "tls: x509: certificate signed by unknown authority"},
		{"insecure", Check{Insecure: true, Host: "example.org"}, to, ""},
		{"status", Check{Roots: roots, Path: "/bad"}, to, "status 500"},
		{"no TLS", Check{Roots: roots}, serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) { io.WriteString(c, "220 mail\r\n"); io.Copy(io.Discard, c) }), "first record does not look like a TLS handshake"},
		{"closes", Check{Roots: roots}, serve(t, "tcp", "127.0.0.1:0", func(net.Conn) {}), "closed before there was an answer|reset"},
		{"refused", Check{Roots: roots}, netip.MustParseAddrPort("127.0.0.1:1"), "connection refused"},
		{"silent", Check{Roots: roots}, serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) { io.Copy(io.Discard, c) }), "timeout: no answer"},
		{"trickles", Check{Roots: roots}, trickle, "timeout: no answer|does not look like"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tt.check
			c.Type, c.Expect = HTTPS, ok2xx
			c.Interval, c.Timeout, c.Fall, c.Rise = 5*time.Second, timeoutFor(tt.want), 1, 1
			if c.Path == "" {
				c.Path = "/"
			}
			r := once(t, c, tt.to)
			ok := tt.want == "" && r.State == Up && r.Err == nil
			for _, want := range strings.Split(tt.want, "|") {
				ok = ok || want != "" && r.Err != nil && r.State == Down && strings.Contains(r.Err.Error(), want)
			}
			if !ok {
				t.Errorf("%+v, want %q", r, tt.want)
			}
		})
	}
	// A certificate whose time is over.
	srv.TLS.Time = nil
	expired := Check{Type: HTTPS, Path: "/", Expect: ok2xx, Roots: roots, Interval: time.Second, Timeout: time.Second, Fall: 1, Rise: 1}
	q := newProbe(Target{Addr: to, Check: &expired}, time.Now())
	err := tlsError(context.Background(), &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}})
	if q == nil || !strings.Contains(err.Error(), "not valid at this time") {
		t.Error(err)
	}
}

// Servers of the worst kinds, and a good one, by their place in the output of
// the process that plays them.
var kinds = []func(net.Conn){
	says("HTTP/1.1 200 OK\r\n\r\n"),
	func(c net.Conn) { // trickles
		head(c)
		for _, b := range []byte("HTTP/1.1 200 OK and so on, and on") {
			c.Write([]byte{b})
			time.Sleep(100 * time.Millisecond) // that slow is this server
		}
	},
	func(c net.Conn) { // floods
		head(c)
		flood := []byte("HTTP/1.1 100 Continue\r\n" + strings.Repeat("x", 64<<10))
		for {
			if _, err := c.Write(flood); err != nil {
				return
			}
		}
	},
	func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) },          // resets
	func(c net.Conn) { io.Copy(io.Discard, c) },                 // takes, and says nothing
	func(c net.Conn) { head(c); io.WriteString(c, "\x00\xff") }, // says nonsense
	thinks, // last: it is a good one
}

const checkerVar = "SLICELB_HEALTH_CHECKER"

const serverVar = "SLICELB_HEALTH_SERVERS"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(serverVar) != "":
		playServers()
		return
	case os.Getenv(checkerVar) != "":
		playChecker()
		return
	}
	os.Exit(m.Run())
}

// thinks for a while, and loses patience with a client that is away for long.
func thinks(c net.Conn) {
	c.SetDeadline(time.Now().Add(time.Second))
	head(c)
	<-time.After(200 * time.Millisecond) // that long is the thinking
	io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
}

// playServers listens on every loopback address, a port for each kind, until
// standard input ends.
func playServers() {
	for _, f := range kinds {
		ln, err := net.Listen("tcp", "0.0.0.0:0")
		if err != nil {
			panic(err)
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					f(c)
				}()
			}
		}()
		fmt.Println(ln.Addr().(*net.TCPAddr).Port)
	}
	io.Copy(io.Discard, os.Stdin)
}

// servers plays kinds in another process, whose time is not ours, until the test
// ends. It returns their ports.
func servers(t testing.TB) []uint16 {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverVar+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	ports := make([]uint16, len(kinds))
	for i := range ports {
		if _, err := fmt.Fscanln(out, &ports[i]); err != nil {
			t.Fatal(err)
		}
	}
	return ports
}

// loopback is the n-th address of many that are this host.
func loopback(n int, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(n >> 8), byte(n)}), port)
}

// A thousand servers of the worst kinds beside ten good ones: checks of all are
// on time, descriptors are bounded, and the good ones stay up.
func TestHostileServers(t *testing.T) { // fault F23
	const bad, good = 1000, 10
	ports := servers(t)
	check := &Check{Type: HTTP, Path: "/", Expect: ok2xx, Interval: 2 * time.Second, Timeout: time.Second, Fall: 1, Rise: 1}
	// The good ones share their process with those that flood: they get the time for it.
	patient := *check
	patient.Timeout = 10 * time.Second
	var list []Target
	for i := range good {
		list = append(list, Target{VIP: "a", Addr: loopback(1+i, ports[0]), Check: &patient})
	}
	for i := range bad {
		list = append(list, Target{VIP: "a", Addr: loopback(100+i, ports[1+i%(len(ports)-2)]), Check: check})
	}
	// What else runs on this machine may hold us up: the best of some rounds is on time.
	const rounds = 4
	for round := 1; ; round++ {
		late := checkHostile(t, list, good)
		if late <= check.Interval/10 {
			break
		}
		if round == rounds {
			t.Fatalf("checks are late by %v in the last of %d rounds, and in each by more than %v", late, rounds, check.Interval/10)
		}
	}
}

// checkHostile has each target checked three times. The first ones are good. It
// returns by how much checks were late, beyond the time that the process stood still.
func checkHostile(t *testing.T, list []Target, good int) (late time.Duration) {
	t.Helper()
	checker := start(t)
	checker.Set(list)
	before, most, worst := descriptors(t), 0, time.Duration(0)
	begun := time.Now()
	judged := func() bool { // each at least three times
		for _, r := range checker.Results() {
			if r.Checks < 3 {
				return false
			}
		}
		return checker.Stats().Targets > 0
	}
	for tick := time.Tick(20 * time.Millisecond); !judged(); {
		select {
		case <-tick:
		case v := <-checker.Verdicts():
			for tg, got := range v.All() {
				if tg.Addr.Port() == list[0].Addr.Port() && got.State == Down {
					t.Fatalf("%s, which is good: %+v", tg.Addr, checker.Results()[Endpoint{tg.VIP, tg.Addr}])
				}
			}
		}
		most = max(most, descriptors(t)-before)
		worst = max(worst, checker.Stats().Late)
		if time.Since(begun) > time.Minute {
			t.Fatalf("not three checks of each in a minute: %+v", checker.Stats())
		}
	}
	s := checker.Stats()
	t.Logf("%d checks, %d failed, %d void, late by %v at most, %d descriptors at most, stalled %v", s.Checks, s.Failed, s.Void, worst, most, s.Stalled)
	if most > len(list)+2*maxSpare {
		t.Errorf("%d descriptors for %d backends", most, len(list))
	}
	results := checker.Results()
	for i, tg := range list {
		want := Down
		if i < good {
			want = Up
		}
		if r := results[Endpoint{tg.VIP, tg.Addr}]; r.State != want {
			t.Fatalf("%s: %+v, want %s", tg.Addr, r, want)
		}
	}
	checker.Set(nil)
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.Tick(10 * time.Millisecond); checker.Stats().Open > 0 || checker.Stats().Targets > 0; <-tick {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", checker.Stats())
		}
	}
	if n := descriptors(t); n > before+2*maxSpare {
		t.Errorf("descriptors: %d before, %d after", before, n)
	}
	return worst - s.Stalled
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
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

// quiet is a log for servers that complain of what a test does.
func quiet(t *testing.T) *log.Logger { return log.New(io.Discard, "", 0) }

// playChecker checks some backends of a port, strictly, and says how many are up when all
// are, and how often a verdict changed until standard input ended.
func playChecker() {
	var port uint16
	var n int
	fmt.Sscan(os.Getenv(checkerVar), &port, &n)
	check := &Check{Type: HTTP, Path: "/", Expect: ok2xx, Interval: time.Second, Timeout: 900 * time.Millisecond, Fall: 1, Rise: 1}
	list := make([]Target, n)
	for i := range list {
		list[i] = Target{VIP: "a", Addr: loopback(1+i, port), Check: check}
	}
	checker := New()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	done := make(chan error, 1)
	go func() { done <- checker.Run(ctx) }()
	checker.Set(list)
	settled, flips, last := false, 0, map[netip.AddrPort]State{}
	for {
		select {
		case v := <-checker.Verdicts():
			up := 0
			for tg, now := range v.All() {
				if settled && last[tg.Addr] != now.State {
					flips++
				}
				last[tg.Addr] = now.State
				if now.State == Up {
					up++
				}
			}
			if up == len(list) && !settled {
				settled = true
				fmt.Println("up", up)
			}
		case err := <-done:
			fmt.Println("flips", flips, checker.Stats().Stalled.Milliseconds(), err)
			return
		}
	}
}

// playedChecker is playChecker in a process of its own.
type playedChecker struct {
	*exec.Cmd
	in  io.Closer
	out io.Reader
}

// playing returns when all n backends are up.
func playing(t *testing.T, port uint16, n int) *playedChecker {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", checkerVar, port, n))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	if _, err := fmt.Fscanf(out, "up %d\n", &n); err != nil {
		t.Fatal(err)
	}
	return &playedChecker{cmd, in, out}
}

func (p *playedChecker) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// end returns how many verdicts changed, and for how many ms it noticed to have been
// stopped.
func (p *playedChecker) end(t *testing.T) (flips, stalled int) {
	t.Helper()
	p.in.Close()
	if _, err := fmt.Fscanf(p.out, "flips %d %d", &flips, &stalled); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	return flips, stalled
}

// A process that is stopped for a while, with checks of strict and impatient
// backends under way, takes none out when it goes on.
func TestStopped(t *testing.T) { // fault F19
	ports := servers(t)
	p := playing(t, ports[len(ports)-1], 200)
	for range 2 {
		p.signal(t, syscall.SIGSTOP)
		<-time.After(3 * time.Second) // the pause itself
		p.signal(t, syscall.SIGCONT)
		<-time.After(2 * time.Second) // two rounds of checks
	}
	flips, stalled := p.end(t)
	if flips > 0 {
		t.Errorf("%d verdicts changed", flips)
	}
	if stalled < 5000 {
		t.Errorf("stopped for 6 s, %d ms noticed", stalled)
	}
}

// The same in the middle of a check: what was answered meanwhile counts, and what is
// answered soon after.
func TestStoppedUnderWay(t *testing.T) { // fault F19
	const ok = "HTTP/1.1 200 OK\r\n\r\n"
	for _, after := range []time.Duration{0, 50 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			var hold atomic.Bool
			held := make(chan net.Conn)
			asked := make(chan bool, 100)
			port := serve(t, "tcp", "127.1.0.1:0", func(c net.Conn) {
				head(c)
				if hold.CompareAndSwap(true, false) {
					held <- c
				} else {
					io.WriteString(c, ok)
				}
				asked <- true
				io.Copy(io.Discard, c)
			}).Port()
			p := playing(t, port, 1)
			hold.Store(true)
			c := <-held
			p.signal(t, syscall.SIGSTOP)
			<-time.After(1500 * time.Millisecond) // the pause itself: more than the rest of the timeout
			if after > 0 {
				p.signal(t, syscall.SIGCONT)
				<-time.After(after) // that long the server thinks on
			}
			io.WriteString(c, ok)
			p.signal(t, syscall.SIGCONT)
			for len(asked) > 0 {
				<-asked
			}
			<-asked // the next check
			if flips, _ := p.end(t); flips > 0 {
				t.Errorf("%d verdicts changed", flips)
			}
		})
	}
}
