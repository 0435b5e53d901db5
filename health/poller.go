package health

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// poller is the prober on real sockets: one epoll instance for all of them. A
// socket whose check succeeded is taken back from its peer (a reset) and used
// for the next: making and closing one costs a third of a check.
//
// Events are edge-triggered, and each one says what is true when it is fetched,
// so what an earlier use of a socket has left over does no harm.
type poller struct {
	epoll, event int
	woken        chan struct{} // both say the same
	called       bool          // event was seen
	alarm        *time.Timer
	tls          *tlsProber

	conns  []conn
	unused []int    // places in conns
	spare  [2][]int // with a socket that is not connected: IPv4, IPv6
	events []unix.EpollEvent
	ended  []*flight
	buf    []byte
}

// conn is a socket and what it is used for.
type conn struct {
	fd     int
	family int // 0 or 1: IPv4, IPv6
	flight *flight
	phase  phase
	sent   int // bytes of the request
}

type phase uint8

const (
	connecting phase = iota
	sending
	reading
)

// maxSpare is how many sockets of each family wait for their next use.
const maxSpare = 256

// eventSlot marks the event of wake.
const eventSlot = -1

func newPoller(tasks *errgroup.Group, ctx context.Context) (prober, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("eventfd: %w", err), unix.Close(epoll))
	}
	p := &poller{
		epoll: epoll, event: event, woken: make(chan struct{}, 1), alarm: time.NewTimer(idle),
		events: make([]unix.EpollEvent, 512), buf: make([]byte, maxAnswer),
	}
	p.tls = newTLSProber(ctx, tasks, p.wake)
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: eventSlot}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, event, &e); err != nil {
		return nil, errors.Join(fmt.Errorf("epoll: %w", err), p.close())
	}
	return p, nil
}

func (p *poller) close() error {
	var errs []error
	for i := range p.conns {
		if p.conns[i].fd >= 0 {
			errs = append(errs, unix.Close(p.conns[i].fd))
		}
	}
	return errors.Join(append(errs, unix.Close(p.event), unix.Close(p.epoll))...)
}

func (p *poller) wake() {
	one := binary.NativeEndian.AppendUint64(nil, 1)
	// EAGAIN: it is awake already.
	_, _ = unix.Write(p.event, one)
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

func (p *poller) room() int { return maxOpen - p.busy() - p.tls.open() }

// busy is how many sockets have a check under way.
func (p *poller) busy() int {
	return len(p.conns) - len(p.unused) - len(p.spare[0]) - len(p.spare[1])
}

func (p *poller) own(f *flight) bool { return f.probe.check.Type == HTTPS }

func (p *poller) start(f *flight) bool {
	if p.own(f) {
		p.tls.start(f)
		return false
	}
	family := 0
	if f.probe.addr.Addr().Is6() {
		family = 1
	}
	slot, fresh, err := p.socket(family)
	if err != nil {
		f.err = &localError{err}
		return true
	}
	c := &p.conns[slot]
	c.flight, c.phase, c.sent = f, connecting, 0
	f.slot = slot
	// What the peer's kernel answers to the SYN is the outcome of a TCP check. The reset
	// comes before the ack: the peer makes no connection, and its application is not
	// woken up.
	putAckOff(c.fd)
	err = connect(c.fd, f.probe.sockaddr)
	switch {
	case err == nil:
	case isLocal(err):
		f.err = &localError{err}
	default:
		f.err = err
	}
	if f.err == nil && fresh {
		e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(slot)}
		if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, c.fd, &e); err != nil {
			f.err = &localError{err}
		}
	}
	if f.err != nil {
		p.drop(slot)
		return true
	}
	return false
}

// socket finds one that is not in use; fresh: epoll does not know it yet.
func (p *poller) socket(family int) (slot int, fresh bool, err error) {
	if s := p.spare[family]; len(s) > 0 {
		slot, p.spare[family] = s[len(s)-1], s[:len(s)-1]
		return slot, false, nil
	}
	domain := [2]int{unix.AF_INET, unix.AF_INET6}[family]
	// Not MPTCP, whatever the host makes of an unnamed protocol.
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return 0, false, err
	}
	// Closed with a reset: no TIME_WAIT is left for each check.
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return 0, false, errors.Join(err, unix.Close(fd))
	}
	if n := len(p.unused); n > 0 {
		slot, p.unused = p.unused[n-1], p.unused[:n-1]
	} else {
		slot = len(p.conns)
		p.conns = append(p.conns, conn{})
	}
	p.conns[slot] = conn{fd: fd, family: family}
	return slot, true, nil
}

// drop closes a socket.
func (p *poller) drop(slot int) {
	c := &p.conns[slot]
	// An error of close() has nobody to go to, and the descriptor is gone.
	_ = unix.Close(c.fd)
	p.conns[slot] = conn{fd: -1}
	p.unused = append(p.unused, slot)
}

// reuse ends a socket's connection and keeps the socket, if nothing of the one tells of the
// next.
func (p *poller) reuse(slot int) {
	c := &p.conns[slot]
	c.flight = nil
	if len(p.spare[c.family]) < maxSpare && disconnect(c.fd) == nil && forget(c.fd) == nil {
		p.spare[c.family] = append(p.spare[c.family], slot)
		return
	}
	p.drop(slot)
}

func (p *poller) stop(f *flight) {
	if p.own(f) {
		p.tls.stop(f)
		return
	}
	if f.slot < 0 {
		return
	}
	c := &p.conns[f.slot]
	f.err = errConnectTimeout
	if c.phase != connecting {
		f.err = errAnswerTimeout
	}
	p.drop(f.slot)
	f.slot = -1
}

// finish ends a flight.
func (p *poller) finish(slot int, err error) {
	f := p.conns[slot].flight
	f.err, f.slot, f.read = err, -1, nil
	p.ended = append(p.ended, f)
	if err == nil {
		p.reuse(slot)
	} else {
		p.drop(slot)
	}
}

// wait blocks in a system call only while a socket may have news before d is over: see
// nonblock.go.
func (p *poller) wait(d time.Duration) []*flight {
	p.ended, p.called = p.ended[:0], false
	p.poll(0)
	switch {
	case len(p.ended) > 0, p.called, d <= 0:
	case p.busy() > 0:
		p.poll(d)
	default:
		p.alarm.Reset(d)
		select {
		case <-p.alarm.C:
		case <-p.woken:
		}
	}
	p.ended = p.tls.collect(p.ended)
	return p.ended
}

// poll waits for news of the sockets for d at most, and goes on with those that have some.
func (p *poller) poll(d time.Duration) {
	var n int
	var err error
	if d > 0 {
		n, err = unix.EpollWait(p.epoll, p.events, int((d+time.Millisecond-1)/time.Millisecond))
	} else {
		n, err = news(p.epoll, p.events)
	}
	if err != nil {
		// EINTR, as after SIGSTOP and SIGCONT: there may be something all the same.
		n, err = news(p.epoll, p.events)
	}
	// All that there is is fetched: nobody may be called late who has answered.
	for err == nil && n > 0 {
		for i := range n {
			p.goOn(p.events[i])
		}
		if n < len(p.events) {
			break
		}
		n, err = news(p.epoll, p.events)
	}
}

// goOn goes on with one socket.
func (p *poller) goOn(e unix.EpollEvent) {
	if e.Fd == eventSlot {
		var b [8]byte
		_, _ = unix.Read(p.event, b[:]) // it counts calls of wake: any number is one
		p.called = true
		return
	}
	slot := int(e.Fd)
	c := &p.conns[slot]
	if c.flight == nil {
		return // what is left of its last use
	}
	q := c.flight.probe
	if c.phase == connecting {
		if e.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			p.finish(slot, socketError(c.fd))
			return
		}
		if e.Events&unix.EPOLLOUT == 0 {
			return
		}
		if q.check.Type == TCP {
			p.finish(slot, nil)
			return
		}
		c.phase = sending
	}
	if c.phase == sending {
		n, err := unix.Write(c.fd, q.request[c.sent:])
		switch {
		case err == nil:
			if c.sent += n; c.sent == len(q.request) {
				c.phase = reading
			}
		case !errors.Is(err, unix.EAGAIN):
			p.finish(slot, err)
			return
		}
	}
	// A server may answer, or close, before it has the whole request.
	if e.Events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		if done, err := p.read(c); done {
			p.finish(slot, err)
		}
	}
}

// read takes what has come of an answer.
func (p *poller) read(c *conn) (bool, error) {
	f := c.flight
	for {
		n, err := unix.Read(c.fd, p.buf[len(f.read):])
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return true, err
		case n == 0:
			return true, errShort
		}
		copy(p.buf, f.read)
		got := p.buf[:len(f.read)+n]
		done, err := answered(f.probe.check, got)
		if done {
			return true, err
		}
		if len(got) == maxAnswer {
			return true, errNoStatus
		}
		f.read = append(f.read, got[len(f.read):]...)
	}
}

// socketError is why a connect failed.
func socketError(fd int) error {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		return err
	case n == 0:
		return errShort // it was there, and was reset at once
	}
	return unix.Errno(n)
}
