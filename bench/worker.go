package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kinds of call that are timed.
const (
	kindConnect = "connect" // connected-UDP connect() on one reused socket
	kindSocket  = "socket"  // UDP socket + connect + close
	kindTCP     = "tcp"     // TCP connect, accept, close
)

// An order is one line from the parent: so many calls of one kind to an address.
type order struct {
	Kind string
	Ops  int
	Addr netip.AddrPort
}

// A result answers an order.
type result struct {
	NsPerOp float64
	Err     string `json:",omitempty"`
}

// work serves orders until its input ends. It runs in the cgroup of one variant,
// so that variants can be timed in turn without attaching or detaching anything.
func work(in io.Reader, out io.Writer) error {
	runtime.LockOSThread()
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o order
		if err := dec.Decode(&o); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		var r result
		ns, err := timed(o)
		if err != nil {
			r.Err = err.Error()
		}
		r.NsPerOp = ns
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
}

func timed(o order) (float64, error) {
	switch o.Kind {
	case kindConnect:
		return timeConnect(o)
	case kindSocket:
		return timeSocket(o)
	case kindTCP:
		return timeTCP(o)
	}
	return 0, fmt.Errorf("unknown kind %q", o.Kind)
}

// rawConnect spares the runtime's bookkeeping: the calls timed here do not block.
func rawConnect(fd int, sa *unix.RawSockaddrInet4) error {
	_, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(sa)), unsafe.Sizeof(*sa))
	if e != 0 {
		return fmt.Errorf("connect: %w", e)
	}
	return nil
}

func rawSocket(kind int) (int, error) {
	fd, _, e := unix.RawSyscall(unix.SYS_SOCKET, unix.AF_INET, uintptr(kind|unix.SOCK_CLOEXEC), 0)
	if e != 0 {
		return -1, fmt.Errorf("socket: %w", e)
	}
	return int(fd), nil
}

func rawClose(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func sockaddr(a netip.AddrPort) *unix.RawSockaddrInet4 {
	p := a.Port()
	return &unix.RawSockaddrInet4{Family: unix.AF_INET, Port: p<<8 | p>>8, Addr: a.Addr().As4()}
}

func timeConnect(o order) (float64, error) {
	fd, err := rawSocket(unix.SOCK_DGRAM)
	if err != nil {
		return 0, err
	}
	defer rawClose(fd)
	sa := sockaddr(o.Addr)
	start := time.Now()
	for range o.Ops {
		if err := rawConnect(fd, sa); err != nil {
			return 0, err
		}
	}
	return perOp(start, o.Ops), nil
}

func timeSocket(o order) (float64, error) {
	sa := sockaddr(o.Addr)
	start := time.Now()
	for range o.Ops {
		fd, err := rawSocket(unix.SOCK_DGRAM)
		if err != nil {
			return 0, err
		}
		err = rawConnect(fd, sa)
		rawClose(fd)
		if err != nil {
			return 0, err
		}
	}
	return perOp(start, o.Ops), nil
}

// timeTCP listens on the backends' addresses and connects to o.Addr. The client
// resets instead of closing, so that no socket is left in TIME_WAIT.
func timeTCP(o order) (float64, error) {
	l, err := rawSocket(unix.SOCK_STREAM)
	if err != nil {
		return 0, err
	}
	defer rawClose(l)
	if err := unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(l, &unix.SockaddrInet4{Port: int(backendAddr.Port())}); err != nil {
		return 0, fmt.Errorf("bind: %w", err)
	}
	if err := unix.Listen(l, 16); err != nil {
		return 0, err
	}
	sa := sockaddr(o.Addr)
	reset := unix.Linger{Onoff: 1}
	start := time.Now()
	for range o.Ops {
		c, err := rawSocket(unix.SOCK_STREAM)
		if err != nil {
			return 0, err
		}
		if err := rawConnect(c, sa); err != nil {
			return 0, err
		}
		s, _, e := unix.RawSyscall(unix.SYS_ACCEPT, uintptr(l), 0, 0)
		if e != 0 {
			return 0, fmt.Errorf("accept: %w", e)
		}
		unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(c), unix.SOL_SOCKET, unix.SO_LINGER,
			uintptr(unsafe.Pointer(&reset)), unsafe.Sizeof(reset), 0)
		rawClose(c)
		rawClose(int(s))
	}
	return perOp(start, o.Ops), nil
}

func perOp(start time.Time, ops int) float64 {
	return float64(time.Since(start).Nanoseconds()) / float64(ops)
}
