package api

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
)

// Web serves the status page and the metrics to whoever reaches its listener.
// Nothing can be changed through it, and nobody is asked who they are.
type Web struct {
	Picture func(context.Context) (*Picture, error)
	Metrics http.Handler
	Log     *slog.Logger
	bounds  bounds
}

// maxWebConns bounds connections to the page; more wait in the kernel.
const maxWebConns = 64

//go:embed page
var pageFiles embed.FS

// contentPolicy forbids the page what it does not need: it loads its own script and
// style, asks this server for a picture, and turns no text into markup.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// Serve answers until ctx ends. It closes ln.
func (s *Web) Serve(ctx context.Context, ln net.Listener) error {
	return serveOn(ctx, newFewConns(ln, maxWebConns), s.routes(), s.Log, s.bounds)
}

func (s *Web) routes() http.Handler { return s.guarded(s.open()) }

// open is what is behind the guard.
func (s *Web) open() *mux {
	mux := newMux()
	mux.Handle("GET /metrics", s.Metrics)
	mux.Handle("GET "+Prefix+"/picture", &Kept{Type: "application/json", Make: func(ctx context.Context) ([]byte, error) {
		p, err := s.Picture(ctx)
		if err != nil {
			return nil, err
		}
		return json.Marshal(p)
	}})
	page, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // embed would not have built
	}
	const script = "text/javascript; charset=utf-8"
	for _, f := range []struct{ path, file, kind string }{
		{"/{$}", "index.html", "text/html; charset=utf-8"},
		{"/page.css", "page.css", "text/css; charset=utf-8"},
		{"/icon.svg", "icon.svg", "image/svg+xml"},
		{"/page.js", "page.js", script},
		{"/rates.js", "rates.js", script},
		{"/picture.js", "picture.js", script},
		{"/tables.js", "tables.js", script},
		{"/words.js", "words.js", script},
	} {
		mux.HandleFunc("GET "+f.path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", f.kind)
			http.ServeFileFS(w, r, page, f.file)
		})
	}
	return mux
}

// guarded refuses what is not for this server before anything is done for it.
func (s *Web) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !ownName(r.Host) {
			// Else a page of anybody's, whose name comes to mean this address, could
			// read this one from within a browser on this host.
			http.Error(w, fmt.Sprintf("%q is no name of this server: ask by its IP address, as localhost, or by the host's name", r.Host), http.StatusMisdirectedRequest)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "nothing can be changed here", http.StatusMethodNotAllowed)
			return
		}
		if r.ContentLength != 0 {
			h.Set("Connection", "close")
			http.Error(w, "no request here has a body", http.StatusRequestEntityTooLarge)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ownName says whether a Host header names this server in a way that nobody
// else's name server decides over.
func ownName(host string) bool {
	if host == "" {
		return true // HTTP/1.0: no browser
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	own, err := os.Hostname()
	return err == nil && own != "" && strings.EqualFold(name, own)
}

// fewConns accepts no more connections than so many at once.
type fewConns struct {
	net.Listener
	room   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newFewConns(ln net.Listener, most int) *fewConns {
	return &fewConns{Listener: ln, room: make(chan struct{}, most), closed: make(chan struct{})}
}

func (l *fewConns) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err
	}
	return &oneOfFew{Conn: c, leave: sync.OnceFunc(func() { <-l.room })}, nil
}

func (l *fewConns) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type oneOfFew struct {
	net.Conn
	leave func()
}

func (c *oneOfFew) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
