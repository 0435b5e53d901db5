package kerneltest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/signal"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// ServeHTTP is an HTTP server of a process of its own that ends as good ones do:
// at SIGTERM it closes its listening socket, answers what it has got, says
// "Connection: close" with each answer, and returns when no connection is left. It
// answers with its address, and calls ready when it listens.
func ServeHTTP(addr string, ready func() error) error {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	var ending atomic.Bool
	var open sync.Map // of connections
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if ending.Load() {
				w.Header().Set("Connection", "close")
			}
			fmt.Fprintln(w, addr)
		}),
		ConnState: func(c net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				open.Store(c, true)
			case http.StateClosed, http.StateHijacked:
				open.Delete(c)
			}
		},
		ReadHeaderTimeout: 30 * time.Second,
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go srv.Serve(ln)
	if err := ready(); err != nil {
		return err
	}
	<-ctx.Done()
	ending.Store(true)
	ln.Close()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		none := true
		open.Range(func(any, any) bool { none = false; return false })
		if none {
			return nil
		}
	}
	return errors.New("connections are left")
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in `)
	wrkErrors   = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	wrkStatus   = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
)

// atoi reads what a pattern says is digits.
func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

// Wrk is what the program of that name said when it was interrupted: how many
// requests it made, and how many of them were lost; false: it said nothing.
func Wrk(output string) (requests, lost int, ok bool) {
	m := wrkRequests.FindStringSubmatch(output)
	if m == nil {
		return 0, 0, false
	}
	requests = atoi(m[1])
	for _, m := range [][]string{wrkErrors.FindStringSubmatch(output), wrkStatus.FindStringSubmatch(output)} {
		if m != nil {
			for _, n := range m[1:] {
				lost += atoi(n)
			}
		}
	}
	return requests, lost, true
}

// FreePort is an address of the loopback on which nobody listens.
func FreePort(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}
