package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// Daemon answers. Every method may be called from many goroutines at once; the
// reading ones return values that nobody changes. An *Error keeps its code on
// the way to the client, any other error is Failed.
type Daemon interface {
	Status(context.Context) (*Status, error)
	VIP(ctx context.Context, name string) (*VIP, error)
	Group(ctx context.Context, name string) (*Group, error)
	RunningConfig(context.Context) (*RunningConfig, error)
	Explain(context.Context, Question) (*Explanation, error)
	Dump(context.Context) (*Dump, error)
	Policy(context.Context) (*Policy, error)
	Reload(context.Context) (*Reloaded, error)
	SetBackend(context.Context, BackendChange) (*BackendChanged, error)
	Live(context.Context, BackendChange) (*Live, error) // State and UID are not set
	Observe(context.Context, Observation) (Stream, error)
	Top(context.Context) (*Top, error)
}

// Bounds of one request. A client that is slow, or sends without end, is cut
// off; a reload has as long as its caller is willing to wait, up to maxWait.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 30 * time.Second
	maxHeader     = 16 << 10
	maxBody       = 64 << 10
	maxWait       = 10 * time.Minute
	changeTimeout = 30 * time.Second
)

// Server answers requests from one listener.
type Server struct {
	Daemon Daemon
	Log    *slog.Logger

	Metrics http.Handler // nil: none

	bounds bounds
}

// peerKey is where a request's context has its peer.
type peerKey struct{}

// Serve answers until ctx ends; requests that are under way then get a second.
// It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return serveOn(ctx, ln, s.routes(), s.Log, s.bounds)
}

// bounds are how long a client may take; zero is the constant of that name.
type bounds struct{ header, read, write, idle time.Duration }

func serveOn(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger, b bounds) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: cmp.Or(b.header, headerTimeout),
		ReadTimeout:       cmp.Or(b.read, readTimeout),
		WriteTimeout:      cmp.Or(b.write, writeTimeout),
		IdleTimeout:       cmp.Or(b.idle, idleTimeout),
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if c, ok := c.(*conn); ok {
				return context.WithValue(ctx, peerKey{}, c.peer)
			}
			return ctx
		},
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := srv.Shutdown(grace); err != nil {
			srv.Close()
		}
	})
	err := srv.Serve(ln)
	if !stop() {
		<-stopped
	}
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *Server) routes() *mux {
	mux := newMux()
	read := func(path string, f func(*http.Request) (any, error)) {
		mux.Handle("GET "+Prefix+path, s.answer(f))
	}
	change := func(path string, f func(r *http.Request, by peer) (any, error)) {
		mux.Handle("POST "+Prefix+path, s.answer(func(r *http.Request) (any, error) {
			by, err := mayChange(r)
			if err != nil {
				return nil, err
			}
			return f(r, by)
		}))
	}
	read("/status", func(r *http.Request) (any, error) { return s.Daemon.Status(r.Context()) })
	read("/vips/{name}", func(r *http.Request) (any, error) { return s.Daemon.VIP(r.Context(), r.PathValue("name")) })
	read("/groups/{name...}", func(r *http.Request) (any, error) { return s.Daemon.Group(r.Context(), r.PathValue("name")) })
	read("/config", func(r *http.Request) (any, error) { return s.Daemon.RunningConfig(r.Context()) })
	read("/policy", func(r *http.Request) (any, error) { return s.Daemon.Policy(r.Context()) })
	read("/dump", func(r *http.Request) (any, error) { return s.Daemon.Dump(r.Context()) })
	read("/explain", func(r *http.Request) (any, error) {
		q, err := question(r.URL.Query())
		if err != nil {
			return nil, err
		}
		return s.Daemon.Explain(r.Context(), q)
	})
	if s.Metrics != nil {
		mux.Handle("GET /metrics", s.Metrics)
	}
	mux.HandleFunc("GET "+Prefix+"/observe", s.observe)
	read("/top", func(r *http.Request) (any, error) { return s.Daemon.Top(r.Context()) })
	change("/reload", s.reload)
	change("/vips/{vip}/backends/{address}/{state}", s.setBackend)
	change("/units/{unit}/{state}", s.setBackend)
	live := func(r *http.Request) (any, error) { return s.Daemon.Live(r.Context(), aboutBackends(r)) }
	read("/vips/{vip}/backends/{address}/live", live)
	read("/units/{unit}/live", live)
	mux.HandleFunc(other, func(w http.ResponseWriter, r *http.Request) {
		refusal := Errorf(NotFound, "%s %s: no such request", r.Method, r.URL.Path)
		if methods := mux.methods(r); methods != "" {
			w.Header().Set("Allow", methods)
			refusal = Errorf(WrongMethod, "%s %s: this path has %s", r.Method, r.URL.Path, methods)
		}
		s.answer(func(*http.Request) (any, error) { return nil, refusal }).ServeHTTP(w, r)
	})
	return mux
}

// aboutBackends is which backends a path names: of a unit, or one of a VIP.
func aboutBackends(r *http.Request) BackendChange {
	return BackendChange{Unit: r.PathValue("unit"), VIP: r.PathValue("vip"), Address: r.PathValue("address")}
}

func (s *Server) setBackend(r *http.Request, by peer) (any, error) {
	b := aboutBackends(r)
	b.State, b.UID = r.PathValue("state"), by.uid
	query := r.URL.Query()
	if query.Has("timeout") {
		var err error
		if b.Wait, err = waitOf(query); err != nil {
			return nil, err
		}
	}
	switch force := query.Get("force"); force {
	case "", "false":
	case "true":
		b.Force = true
	default:
		return nil, Errorf(BadRequest, "force %q: want true or false", force)
	}
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout+b.Wait)
	defer cancel()
	return s.Daemon.SetBackend(ctx, b)
}

// reload waits as long as its caller does; what is not done by then, or when
// the caller goes away, is not done.
func (s *Server) reload(r *http.Request, _ peer) (any, error) {
	wait, err := waitOf(r.URL.Query())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	return s.Daemon.Reload(ctx)
}

// waitOf is how long a caller is willing to wait.
func waitOf(query url.Values) (time.Duration, error) {
	wait, err := time.ParseDuration(query.Get("timeout"))
	if err != nil || wait <= 0 || wait > maxWait {
		return 0, Errorf(BadRequest, "timeout %q: want a duration between 0 and %v", query.Get("timeout"), maxWait)
	}
	return wait, nil
}

// answer runs f and writes what it returns.
func (s *Server) answer(f func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		// No request of this version has a body; one that comes is read up to
		// its bound and forgotten.
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			s.write(w, http.StatusRequestEntityTooLarge, Errorf(BadRequest, "request body: %v", err))
			return
		}
		if r.Method == http.MethodPost {
			if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(maxWait + writeTimeout)); err != nil {
				s.Log.Debug("api deadline", "err", err)
			}
		}
		v, err := f(r)
		if err != nil {
			e := asError(err)
			s.write(w, e.head(w.Header()), e)
			return
		}
		s.write(w, http.StatusOK, v)
	})
}

func (s *Server) write(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status = http.StatusInternalServerError
		b, _ = json.Marshal(Errorf(Failed, "encode answer: %v", err))
		s.Log.Error("api answer", "err", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(append(b, '\n')); err != nil {
		s.Log.Debug("api answer", "err", err)
	}
}

// peerIn is who asks.
func peerIn(r *http.Request) (peer, error) {
	by, ok := r.Context().Value(peerKey{}).(peer)
	if !ok {
		return peer{}, Errorf(Forbidden, "peer credentials unknown")
	}
	return by, nil
}

// mayChange admits uid 0 and the daemon's own user, and nobody whose
// credentials are unknown. It returns who asks.
func mayChange(r *http.Request) (peer, error) {
	by, err := peerIn(r)
	if err != nil {
		return peer{}, err
	}
	if by.uid != 0 && int(by.uid) != os.Geteuid() {
		return peer{}, &Error{Code: Forbidden, Text: "only root and the daemon's own user may change it", Hint: "run it as root"}
	}
	return by, nil
}
