package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"
)

// maxAnswer bounds what a client reads: a dump of full maps fits.
const maxAnswer = 512 << 20

// answerTimeout is how long a question may take: longer than the daemon lets
// itself be asked.
const answerTimeout = writeTimeout + 10*time.Second

// statusTimeout is the same for a status, which a daemon that is well has at hand,
// and which is asked by what watches it.
const statusTimeout = 5 * time.Second

// Client asks the daemon at one socket. Its methods return ErrNotRunning,
// ErrNoAnswer, ErrNotPermitted, an *Error from the daemon, or the context's error, wrapped.
type Client struct {
	socket string
	http   http.Client
}

// NewClient asks at socket; it connects when it is used.
func NewClient(socket string) *Client {
	var d net.Dialer
	return &Client{socket: socket, http: http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// Metrics asks for the metrics, in Prometheus' text format. It has no timeout of
// its own.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	body, err := c.ask(ctx, http.MethodGet, "/metrics")
	return string(body), err
}

func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	return getWithin[T](ctx, answerTimeout, c, path)
}

// getWithin is get where an answer takes no longer than that.
func getWithin[T any](ctx context.Context, limit time.Duration, c *Client, path string) (*T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w: nothing came in %v", ErrNoAnswer, limit))
	defer cancel()
	v, err := do[T](ctx, c, http.MethodGet, path)
	if ctx.Err() == nil && hungUp(err) {
		err = fmt.Errorf("%w: it hung up (%w)", ErrNoAnswer, err)
	}
	return v, err
}

// hungUp tells a connection that was made and has ended before its answer. The
// transport has an error of its own, without a name, for one that ends before the
// question is written: so it is whatever the transport says but for dialling.
func hungUp(err error) bool {
	var transport *url.Error
	if !errors.As(err, &transport) {
		return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF)
	}
	var op *net.OpError
	return !errors.As(err, &op) || op.Op != "dial"
}

func do[T any](ctx context.Context, c *Client, method, path string) (*T, error) {
	body, err := c.ask(ctx, method, Prefix+path)
	if err != nil {
		return nil, err
	}
	v := new(T)
	if err := json.Unmarshal(body, v); err != nil {
		return nil, fmt.Errorf("read daemon's answer: %w", err)
	}
	return v, nil
}

// ask returns the body of an answer that is no error.
func (c *Client) ask(ctx context.Context, method, path string) ([]byte, error) {
	resp, err := c.send(ctx, method, path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, failure(resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read daemon's answer: %w", err)
	}
	return body, nil
}

// send asks, and returns an answer of any status; the caller closes its body.
func (c *Client) send(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://slicelb"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask daemon: %w", err)
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED) && !isSocket(c.socket):
		return nil, fmt.Errorf("ask daemon: %s is no socket", c.socket)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nothing answers at %s", ErrNotRunning, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("open %s: %w", c.socket, ErrNotPermitted)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("ask daemon at %s: %w", c.socket, context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("ask daemon at %s: %w", c.socket, err)
	}
	return resp, nil
}

// isSocket is true where nobody can tell, too.
func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err != nil || info.Mode()&fs.ModeSocket != 0
}

// failure is the daemon's error, of an answer that is one.
func failure(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read daemon's answer: %w", err)
	}
	e := new(Error)
	if err := json.Unmarshal(body, e); err != nil || e.Text == "" {
		return fmt.Errorf("daemon answered %s", resp.Status)
	}
	return e
}
