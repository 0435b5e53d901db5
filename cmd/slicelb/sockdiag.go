package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// diagSocket is what the kernel says of one socket (inet_diag_msg).
type diagSocket struct {
	state       uint8
	local, peer netip.AddrPort
	cgroup      uint64
}

const (
	tcpTimeWait   = 6 // nobody's any more, and of no cgroup
	tcpListen     = 10
	diagMsgLen    = 72
	diagCgroupID  = 21 // INET_DIAG_CGROUP_ID
	diagByFamily  = 20 // SOCK_DIAG_BY_FAMILY
	diagAllStates = 0xfff
)

// diagSockets dumps the sockets of a family and protocol.
func diagSockets(family, proto uint8) ([]diagSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	// A header, then inet_diag_req_v2.
	req := make([]byte, unix.SizeofNlMsghdr+56)
	binary.NativeEndian.PutUint32(req[0:], uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], diagByFamily)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := req[unix.SizeofNlMsghdr:]
	body[0], body[1] = family, proto
	binary.NativeEndian.PutUint32(body[4:], diagAllStates)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask sock_diag: %w", err)
	}
	var out []diagSocket
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return nil, fmt.Errorf("read sock_diag: %w", err)
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, fmt.Errorf("read sock_diag: %w", err)
		}
		for _, m := range msgs {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return out, nil
			case unix.NLMSG_ERROR:
				if len(m.Data) >= 4 {
					if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data))); errno != 0 {
						if errors.Is(errno, unix.ENOENT) {
							return out, nil // no such protocol here
						}
						return nil, fmt.Errorf("sock_diag: %w", errno)
					}
				}
			default:
				if s, ok := parseDiag(m.Data); ok {
					out = append(out, s)
				}
			}
		}
	}
}

// parseDiag reads an inet_diag_msg and the attributes behind it.
func parseDiag(b []byte) (diagSocket, bool) {
	if len(b) < diagMsgLen {
		return diagSocket{}, false
	}
	addr := func(raw []byte, port []byte) netip.AddrPort {
		a := netip.AddrFrom4([4]byte(raw[:4]))
		if b[0] == unix.AF_INET6 {
			a = netip.AddrFrom16([16]byte(raw[:16])).Unmap()
		}
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
	}
	s := diagSocket{state: b[1], local: addr(b[8:24], b[4:6]), peer: addr(b[24:40], b[6:8])}
	for rest := b[diagMsgLen:]; len(rest) >= 4; {
		length, kind := int(binary.NativeEndian.Uint16(rest)), binary.NativeEndian.Uint16(rest[2:])
		if length < 4 || length > len(rest) {
			break
		}
		if kind == diagCgroupID && length >= 12 {
			s.cgroup = binary.NativeEndian.Uint64(rest[4:])
		}
		rest = rest[min((length+3)&^3, len(rest)):]
	}
	return s, true
}
