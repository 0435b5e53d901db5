package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

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

// quiet is a log for servers that complain of what a test does.
func quiet(t *testing.T) *log.Logger { return log.New(io.Discard, "", 0) }
