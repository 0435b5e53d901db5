package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/sync/errgroup"
)

// tlsProber makes the checks over TLS, each in a goroutine of its own for as
// long as it lasts.
type tlsProber struct {
	ctx   context.Context
	tasks *errgroup.Group
	wake  func()

	mu      sync.Mutex
	running map[*flight]context.CancelFunc
	count   int // goroutines
	done    []*flight
}

func newTLSProber(ctx context.Context, tasks *errgroup.Group, wake func()) *tlsProber {
	return &tlsProber{ctx: ctx, tasks: tasks, wake: wake, running: map[*flight]context.CancelFunc{}}
}

func (p *tlsProber) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

func (p *tlsProber) start(f *flight) {
	ctx, cancel := context.WithTimeout(p.ctx, f.probe.check.Timeout)
	p.mu.Lock()
	p.running[f] = cancel
	p.count++
	p.mu.Unlock()
	p.tasks.Go(func() error {
		defer cancel()
		err := askTLS(ctx, f.probe)
		p.mu.Lock()
		p.count--
		if _, ok := p.running[f]; ok {
			delete(p.running, f)
			f.err = err
			p.done = append(p.done, f)
		}
		p.mu.Unlock()
		p.wake()
		return nil
	})
}

// stop leaves a check to end by itself, unheard.
func (p *tlsProber) stop(f *flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cancel, ok := p.running[f]; ok {
		delete(p.running, f)
		cancel()
	}
}

func (p *tlsProber) collect(ended []*flight) []*flight {
	p.mu.Lock()
	defer p.mu.Unlock()
	ended = append(ended, p.done...)
	p.done = p.done[:0]
	return ended
}

// askTLS is one check. A whole handshake each time: a certificate that has been
// replaced, or has run out, is noticed.
func askTLS(ctx context.Context, q *probe) error {
	d := net.Dialer{KeepAlive: -1}
	d.SetMultipathTCP(false)
	raw, err := d.DialContext(ctx, "tcp", q.addr.String())
	if err != nil {
		var op *net.OpError
		switch {
		case ctx.Err() != nil:
			return errConnectTimeout
		case isLocal(err):
			return &localError{errors.Unwrap(err)}
		case errors.As(err, &op):
			return op.Err
		}
		return err
	}
	defer raw.Close()
	if c, ok := raw.(*net.TCPConn); ok {
		// Not worth an error: it leaves a TIME_WAIT.
		_ = c.SetLinger(0)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := raw.SetDeadline(deadline); err != nil {
			return err
		}
	}
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	conn := tls.Client(raw, tlsConfig(q))
	if err := conn.HandshakeContext(ctx); err != nil {
		return tlsError(ctx, err)
	}
	return ask(ctx, conn, q)
}

// ask sends the request and judges the answer.
func ask(ctx context.Context, conn net.Conn, q *probe) error {
	if _, err := conn.Write(q.request); err != nil {
		return tlsError(ctx, err)
	}
	b := make([]byte, maxAnswer)
	for n := 0; n < len(b); {
		m, err := conn.Read(b[n:])
		n += m
		if m > 0 {
			if done, err := answered(q.check, b[:n]); done {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return errShort
		}
		if err != nil {
			return tlsError(ctx, err)
		}
	}
	return errNoStatus
}

func tlsConfig(q *probe) *tls.Config {
	return &tls.Config{
		ServerName: serverName(q.check, q.addr), RootCAs: q.check.Roots, InsecureSkipVerify: q.check.Insecure,
		NextProtos: []string{"http/1.1"},
	}
}

// tlsError is err in as few words as there are for it.
func tlsError(ctx context.Context, err error) error {
	var timeout net.Error
	var op *net.OpError
	var verify *tls.CertificateVerificationError
	var invalid x509.CertificateInvalidError
	switch {
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return errAnswerTimeout
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("tls: the certificate is not valid at this time: %w", invalid)
	case errors.As(err, &verify):
		return fmt.Errorf("tls: %w", verify.Err)
	case errors.As(err, &op):
		return op.Err
	case errors.Is(err, io.EOF):
		return errShort
	}
	return err
}
