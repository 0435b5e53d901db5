package kerneltest

import (
	"encoding/gob"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The client's side: one request after the other until the input ends.

func serveClient() {
	in, out := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	for {
		var r request
		if in.Decode(&r) != nil {
			return
		}
		var answer reply
		err := r.serve(&answer)
		if err != nil && !errors.As(err, &answer.Errno) {
			answer.Err = err.Error()
		}
		if out.Encode(answer) != nil {
			return
		}
	}
}

func (r request) serve(answer *reply) (err error) {
	switch r.Op {
	case "enter":
		return enter(r.Path)
	case "socket":
		answer.N, err = newSocket(r.Args[0], r.Args[1], r.Args[2])
		return err
	case "connect":
		return connect(r.FD, sockaddr(r.Addr))
	case "bind":
		return unix.Bind(r.FD, sockaddr(r.Addr))
	case "loopback":
		if err := loopbackUp(); err != nil {
			return err
		}
		return addLoopback(r.Addr.Addr())
	case "uring":
		return uringConnect(r.FD, r.Addr, r.Args[0] != 0)
	case "heir":
		return uringConnectByHeir(r.FD, r.Addr, r.Path)
	case "disconnect":
		unspec := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(r.FD),
			uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec))
		return orNil(errno)
	case "getpeername":
		sa, err := unix.Getpeername(r.FD)
		answer.Addr = addrPort(sa)
		return err
	case "send":
		_, err := unix.Write(r.FD, r.Data)
		return err
	case "sendto":
		return unix.Sendto(r.FD, r.Data, r.Flags, sockaddr(r.Addr))
	case "sendmmsg":
		answer.N, err = sendMany(r.FD, r.Data, r.Addrs)
		return err
	case "recv":
		b := make([]byte, 2048)
		// The address is NULL, unlike in unix.Recvfrom.
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(r.FD),
			uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0, 0)
		if errno != 0 {
			return errno
		}
		answer.Data = b[:n]
		return nil
	case "recvfrom":
		b := make([]byte, 2048)
		n, from, err := unix.Recvfrom(r.FD, b, 0)
		if err == nil {
			answer.Data, answer.Addr = b[:n], addrPort(from)
		}
		return err
	case "recverr":
		answer.Addr, err = receiveError(r.FD)
		return err
	case "setsockopt":
		return unix.SetsockoptInt(r.FD, r.Args[0], r.Args[1], r.Args[2])
	case "retransmits":
		info, err := unix.GetsockoptTCPInfo(r.FD, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			answer.N = int(info.Total_retrans)
		}
		return err
	case "close":
		return unix.Close(r.FD)
	case "listenfd":
		answer.N, err = newSocket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		return unix.Bind(answer.N, &unix.SockaddrUnix{Name: r.Path})
	case "sendfd":
		return sendDescriptor(r.FD, r.Path)
	case "recvfd":
		answer.N, err = receiveDescriptor(r.FD)
		return err
	case "load":
		answer.Load = r.load()
		return nil
	case "hammer":
		answer.Wrong, err = r.hammer()
		return err
	case "churn":
		dir := filepath.Join(r.Path, "churn")
		for range r.Count {
			if err := unix.Mkdir(dir, 0o755); err != nil {
				return err
			}
			if err := unix.Rmdir(dir); err != nil {
				return err
			}
		}
		return nil
	case "atonce":
		answer.Load, err = r.atOnce()
		return err
	}
	return fmt.Errorf("unknown request %q", r.Op)
}

func orNil(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func enter(path string) error {
	return os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte("0"), 0)
}

func newSocket(domain, typ, protocol int) (int, error) {
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, err
	}
	limit := unix.Timeval{Sec: 3}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

func domainOf(a netip.AddrPort) int {
	if a.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// addrPort keeps a v4-mapped address as it is.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func sendMany(fd int, data []byte, to []netip.AddrPort) (int, error) {
	type message struct {
		header unix.Msghdr
		length uint32
		_      [4]byte
	}
	messages := make([]message, len(to))
	names := make([]unix.RawSockaddrInet6, len(to))
	iov := unix.Iovec{Base: &data[0]}
	iov.SetLen(len(data))
	for i, a := range to {
		h := &messages[i].header
		h.Iov = &iov
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&names[i]))
		h.Namelen = rawSockaddr(&names[i], a)
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd),
		uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), 0, 0, 0)
	return int(n), orNil(errno)
}

// receiveError waits for the error queue and returns where the packet went.
func receiveError(fd int) (netip.AddrPort, error) {
	// POLLERR comes unasked.
	switch n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 3000); {
	case err != nil:
		return netip.AddrPort{}, err
	case n == 0:
		return netip.AddrPort{}, unix.EAGAIN
	}
	_, _, _, to, err := unix.Recvmsg(fd, make([]byte, 2048), make([]byte, 512), unix.MSG_ERRQUEUE)
	return addrPort(to), err
}

// rawSockaddr fills in an address of either family; it returns its size.
func rawSockaddr(name *unix.RawSockaddrInet6, a netip.AddrPort) uint32 {
	port := [2]byte{byte(a.Port() >> 8), byte(a.Port())}
	if a.Addr().Is4() {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		four.Family, four.Addr = unix.AF_INET, a.Addr().As4()
		four.Port = *(*uint16)(unsafe.Pointer(&port))
		return unix.SizeofSockaddrInet4
	}
	name.Family, name.Addr = unix.AF_INET6, a.Addr().As16()
	name.Port = *(*uint16)(unsafe.Pointer(&port))
	return unix.SizeofSockaddrInet6
}

func sendDescriptor(fd int, path string) error {
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	return unix.Sendmsg(s, []byte{0}, unix.UnixRights(fd), &unix.SockaddrUnix{Name: path}, 0)
}

func receiveDescriptor(s int) (int, error) {
	defer unix.Close(s)
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(s, b, oob, 0)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("no descriptor came: %v", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("no descriptor came: %v", err)
	}
	return fds[0], nil
}

func (r request) load() LoadResult {
	var out LoadResult
	end := Monotonic() + r.Timeout
	typ := unix.SOCK_STREAM
	if r.Args[0] == 1 {
		typ = unix.SOCK_DGRAM
	}
	for i := 0; r.Count == 0 || i < r.Count; i++ {
		if r.Timeout != 0 && Monotonic() > end {
			break
		}
		out.Connections = append(out.Connections, connectOnce(r.Addr, typ, Monotonic))
	}
	return out
}

// connectOnce connects, asks for both names and closes. before runs just ahead
// of connect and tells the time.
func connectOnce(to netip.AddrPort, typ int, before func() time.Duration) (c Connection) {
	fd, err := newSocket(domainOf(to), typ, 0)
	if err == nil {
		defer unix.Close(fd)
		// A reset at close leaves no TIME_WAIT, so that ports do not run out.
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		sa := sockaddr(to)
		c.At = before()
		err = connect(fd, sa)
		c.Until = Monotonic()
	}
	if err == nil && typ == unix.SOCK_DGRAM {
		_, err = unix.Write(fd, []byte("x"))
	}
	var name [64]byte
	var n int
	if err == nil {
		n, err = unix.Read(fd, name[:])
	}
	if err == nil {
		var sa unix.Sockaddr
		sa, err = unix.Getpeername(fd)
		c.Peer = addrPort(sa)
	}
	for n > 0 && name[n-1] == '\n' {
		n--
	}
	c.Server = string(name[:max(n, 0)]) // n is -1 after an error
	if err != nil && !errors.As(err, &c.Errno) {
		c.Errno = syscall.EIO
	}
	return c
}

func (r request) hammer() ([]string, error) {
	fd, err := newSocket(domainOf(r.Addrs[0]), unix.SOCK_DGRAM, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	to := make([]unix.Sockaddr, len(r.Addrs))
	for i, a := range r.Addrs {
		to[i] = sockaddr(a)
	}
	var wrong []string
	note := func(i int, what string) {
		if len(wrong) < 20 {
			wrong = append(wrong, fmt.Sprintf("%s: %s", r.Addrs[i], what))
		}
	}
	for n := range r.Count {
		for i, sa := range to {
			err := unix.Connect(fd, sa)
			if i >= r.Args[0] {
				continue
			}
			if err != nil {
				note(i, err.Error())
			} else if n%16 == 0 {
				peer, err := unix.Getpeername(fd)
				if got := addrPort(peer); err != nil || got != r.Addrs[i] {
					note(i, fmt.Sprintf("peer %s, %v", got, err))
				}
			}
		}
	}
	return wrong, nil
}

func (r request) atOnce() (LoadResult, error) {
	var out LoadResult
	home := r.Path
	for i := range r.Count {
		dir := filepath.Join(home, strings.ReplaceAll(string(r.Data), "%d", strconv.Itoa(i)))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return out, err
		}
		procs, err := unix.Open(filepath.Join(dir, "cgroup.procs"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return out, err
		}
		c := connectOnce(r.Addr, unix.SOCK_STREAM, func() time.Duration {
			if _, err := unix.Write(procs, []byte("0")); err != nil {
				panic(err)
			}
			return 0
		})
		unix.Close(procs)
		out.Connections = append(out.Connections, c)
		if err := enter(home); err != nil {
			return out, err
		}
		if err := os.Remove(dir); err != nil {
			return out, err
		}
	}
	return out, nil
}

// connect goes on waiting when a signal of Go's own runtime interrupts it: the
// kernel goes on connecting then, and a second call would be refused.
func connect(fd int, to unix.Sockaddr) error {
	err := unix.Connect(fd, to)
	if err != unix.EINTR {
		return err
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			return err
		}
		return orNil(unix.Errno(errno))
	}
}
