package health

import (
	"encoding/binary"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls that each check and each turn make, and of which none blocks. They are
// made without a word to Go's scheduler: one that is announced to it wakes the runtime's
// monitor, which then looks whether it takes long, every 20 µs for a millisecond and more
// and more seldom after (runtime/proc.go, sysmon; Go 1.26). With batches of checks fifty
// times a second that was 3,000 wake-ups a second, and up to a third of the cost of 5,000
// checks.

// sockaddr is to as the kernel takes it.
func sockaddr(to netip.AddrPort) []byte {
	if a := to.Addr(); a.Is6() {
		b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET6)
		b = binary.BigEndian.AppendUint16(b, to.Port())
		b = append(b, make([]byte, 4)...) // flow information
		b = append(b, a.AsSlice()...)
		return append(b, make([]byte, 4)...) // scope
	}
	b := binary.NativeEndian.AppendUint16(nil, unix.AF_INET)
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = append(b, to.Addr().AsSlice()...)
	return append(b, make([]byte, 8)...)
}

// connect begins to connect a socket that does not block; EINPROGRESS is no error.
func connect(fd int, to []byte) error {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to[0])), uintptr(len(to)))
	if errno == 0 || errno == unix.EINPROGRESS {
		return nil
	}
	return errno
}

// disconnect ends a socket's connection with a reset.
func disconnect(fd int) error {
	var unspec [16]byte // of AF_UNSPEC
	return connect(fd, unspec[:])
}

// forget has the kernel draw the sequence numbers of a socket's next connection. They would
// follow from those of the last one otherwise (net/ipv4/tcp.c, tcp_disconnect()), and
// whoever was asked in that could answer in another's name: all that it has to guess is a
// port. It takes CAP_NET_ADMIN.
func forget(fd int) error {
	const sendQueue = 2 // linux/tcp.h, TCP_SEND_QUEUE
	for _, o := range [...]struct {
		name  uintptr
		value int32
	}{
		{unix.TCP_REPAIR, unix.TCP_REPAIR_ON},
		{unix.TCP_REPAIR_QUEUE, sendQueue},
		{unix.TCP_QUEUE_SEQ, 0}, // 0: none yet
		{unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP},
	} {
		if errno := setTCP(fd, o.name, o.value); errno != 0 {
			return errno
		}
	}
	return nil
}

func setTCP(fd int, name uintptr, value int32) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, name, uintptr(unsafe.Pointer(&value)), unsafe.Sizeof(value), 0)
	return errno
}

// putAckOff has the next connection of a socket not acknowledge the peer's answer to its
// SYN for 200 ms (TCP_DELACK_MAX): tcp(7), TCP_QUICKACK. If it fails, the check costs more.
func putAckOff(fd int) { setTCP(fd, unix.TCP_QUICKACK, 0) }

// news fetches the events of epoll that are there.
func news(epoll int, events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// processorTime is how much of the processors' time the process has had.
func processorTime() time.Duration {
	var ts unix.Timespec // the call cannot fail for this clock
	unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_PROCESS_CPUTIME_ID, uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano())
}
