package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/metrics"
)

// webRetry is how often an address that could not be listened at is tried again.
const webRetry = time.Second

// web is where the status page and the metrics are served. Its zero value is
// ready; any goroutine may use it.
type web struct {
	mu     sync.Mutex
	wanted netip.AddrPort // the zero value is nowhere
	change chan struct{}  // closed when wanted changes
	text   *api.Kept      // the metrics, for the socket and the page alike

	served atomic.Pointer[netip.AddrPort]
	err    atomic.Pointer[string] // why it is not served, though wanted
}

// want says where from now on.
func (w *web) want(addr netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wanted == addr {
		return
	}
	w.wanted = addr
	if w.change != nil {
		close(w.change)
		w.change = nil
	}
}

// next is where, and a channel that is closed when that is true no more.
func (w *web) next() (netip.AddrPort, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.change == nil {
		w.change = make(chan struct{})
	}
	return w.wanted, w.change
}

// address is where the page is, "" = nowhere.
func (w *web) address() string {
	if at := w.served.Load(); at != nil {
		return at.String()
	}
	return ""
}

// metrics answers with every metric of d.
func (w *web) metrics(d *daemon) http.Handler {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.text == nil {
		registry := metrics.New(answers{d}.reading)
		w.text = &api.Kept{Type: metrics.ContentType, Make: func(ctx context.Context) ([]byte, error) {
			defer d.trim.Store(true)
			return registry.Text(ctx)
		}}
	}
	return w.text
}

// serveWeb serves the page wherever the configuration says. Whatever comes of
// that, the daemon goes on: it is said in status, and tried again.
func (d *daemon) serveWeb(ctx context.Context) error {
	page := &api.Web{Picture: answers{d}.picture, Metrics: d.web.metrics(d), Log: d.log}
	for said := ""; ctx.Err() == nil; {
		addr, change := d.web.next()
		if !addr.IsValid() {
			d.web.err.Store(nil)
			said = ""
			select {
			case <-change:
			case <-ctx.Done():
			}
			continue
		}
		err := d.serveWebAt(ctx, page, addr, change)
		if err == nil {
			said = ""
			continue
		}
		text := fmt.Sprintf("the status page and the metrics are not served: %v", err)
		d.web.err.Store(&text)
		if text != said {
			d.log.Error("the status page and the metrics are not served; trying again", "err", err)
			said = text
		}
		select {
		case <-change:
		case <-time.After(webRetry):
		case <-ctx.Done():
		}
	}
	return nil
}

// refusedPort says what may be done about a port that the daemon may not have. The
// unit's SocketBindDeny= answers with another error than the kernel, for low ports.
func refusedPort(err error, port uint16) error {
	switch {
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: the kernel keeps low ports to itself, usually those below 1024: take a higher one", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: its unit allows port 9781 alone, SocketBindAllow=tcp:%d in a drop-in allows this one", err, port)
	}
	return err
}

// serveWebAt serves at one address until another is wanted or ctx ends.
func (d *daemon) serveWebAt(ctx context.Context, page *api.Web, addr netip.AddrPort, change <-chan struct{}) error {
	var c net.ListenConfig
	ln, err := c.Listen(ctx, "tcp", addr.String())
	if err != nil {
		return refusedPort(err, addr.Port())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-change:
			cancel()
		case <-ctx.Done():
		}
	}()
	d.web.err.Store(nil)
	d.web.served.Store(&addr)
	defer d.web.served.Store(nil)
	d.log.Info("serving the status page and the metrics", "address", addr.String())
	return page.Serve(ctx, ln)
}
