package fdstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Notifier speaks sd_notify's protocol, with descriptors. Where there is no
// service manager every call does nothing and succeeds. Its methods may be called at
// any time by anyone.
type Notifier struct {
	// Watchdog is how often the manager wants a sign of life; 0 = never.
	Watchdog time.Duration

	addr *unix.SockaddrUnix // nil = nobody to tell
}

// NewNotifier reads NOTIFY_SOCKET and WATCHDOG_USEC by lookup.
func NewNotifier(lookup func(string) (string, bool)) *Notifier {
	n := &Notifier{}
	path, _ := lookup("NOTIFY_SOCKET")
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@") {
		return n
	}
	n.addr = &unix.SockaddrUnix{Name: path}
	if pid, ok := lookup("WATCHDOG_PID"); ok && pid != strconv.Itoa(os.Getpid()) {
		return n
	}
	if v, ok := lookup("WATCHDOG_USEC"); ok {
		if usec, err := strconv.ParseInt(v, 10, 64); err == nil && usec > 0 {
			n.Watchdog = time.Duration(usec) * time.Microsecond
		}
	}
	return n
}

// Managed reports whether a service manager listens.
func (n *Notifier) Managed() bool { return n.addr != nil }

// Send tells the manager the assignments in lines, and waits for room in its
// socket.
func (n *Notifier) Send(lines ...string) error { return n.write(0, nil, lines...) }

// write is Send with flags of sendmsg(2) and descriptors. The manager takes copies;
// the caller keeps its own.
func (n *Notifier) write(flags int, fds []int, lines ...string) error {
	if n.addr == nil {
		return nil
	}
	// Not package net's: it sends no descriptors over a connected datagram socket.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	defer unix.Close(fd)
	// A manager that is stopped or busy must not hold the caller for ever.
	timeout := unix.NsecToTimeval(int64(notifyTimeout))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		return fmt.Errorf("notify: %w", err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(fd, []byte(strings.Join(lines, "\n")), rights, n.addr, unix.MSG_NOSIGNAL|flags)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("notify: %w", err)
		}
	}
}

const notifyTimeout = 5 * time.Second

// Patiently does what may take up to patience in one go, and has the manager wait as
// long: with the watchdog, which has its usual time again afterwards, and with a start
// that is under way (EXTEND_TIMEOUT_USEC=, systemd 236 and later; a unit that runs has
// no such limit). The error is that of telling.
func (n *Notifier) Patiently(patience time.Duration, do func()) error {
	tell := []string{usec("EXTEND_TIMEOUT_USEC", patience)}
	short := n.Watchdog > 0 && n.Watchdog < patience
	if short {
		tell = append(tell, usec("WATCHDOG_USEC", patience), "WATCHDOG=1")
	}
	err := n.Send(tell...)
	do()
	if short {
		err = errors.Join(err, n.Send(usec("WATCHDOG_USEC", n.Watchdog), "WATCHDOG=1"))
	}
	return err
}

func usec(name string, d time.Duration) string {
	return name + "=" + strconv.FormatInt(d.Microseconds(), 10)
}

// Barrier returns when the manager has worked off all that was sent before, with an
// error when ctx ends first, or after notifyTimeout.
func (n *Notifier) Barrier(ctx context.Context) error {
	if n.addr == nil {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("notify barrier: %w", err)
	}
	defer r.Close()
	err = n.write(0, []int{int(w.Fd())}, "BARRIER=1")
	w.Close()
	if err != nil {
		return err
	}
	if err := r.SetReadDeadline(time.Now().Add(notifyTimeout)); err != nil {
		return fmt.Errorf("notify barrier: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Now()) }) // r may be closed
	defer stop()
	// The manager closes its end when it comes to the message; so the read ends.
	if _, err := r.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("notify barrier: %w", err)
	}
	return nil
}

// Reloading is what the manager is told before a reload; READY=1 ends it.
func Reloading() []string {
	var ts unix.Timespec
	// CLOCK_MONOTONIC is always there.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return []string{"RELOADING=1", "MONOTONIC_USEC=" + strconv.FormatInt(ts.Nano()/1000, 10)}
}
