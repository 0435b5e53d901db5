package kerneltest

import (
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// As much of io_uring as one connect takes (include/uapi/linux/io_uring.h).

type uringParams struct {
	sqEntries, cqEntries, flags, threadCPU, threadIdle, features, wqFD uint32
	_                                                                  [3]uint32
	sq                                                                 struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

type uringSubmission struct {
	opcode, flags uint8
	_             uint16
	fd            int32
	offset        uint64
	addr          uint64
	_             [5]uint64
}

type uringCompletion struct {
	_      uint64
	result int32
	_      uint32
}

const (
	uringSQRing     = 0
	uringSQEs       = 0x10000000
	uringOpConnect  = 16
	uringAsync      = 1 << 4 // IOSQE_ASYNC: by a worker thread
	uringGetEvents  = 1
	uringSingleMmap = 1
)

// uringConnect connects fd through a ring of its own.
func uringConnect(fd int, to netip.AddrPort, async bool) error {
	var p uringParams
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return errno
	}
	defer unix.Close(int(ring))
	if p.features&uringSingleMmap == 0 {
		return unix.ENOSYS
	}
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(uringCompletion{})))
	rings, err := unix.Mmap(int(ring), uringSQRing, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(rings) }()
	sqes, err := unix.Mmap(int(ring), uringSQEs, int(p.sqEntries)*64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(sqes) }()

	name, length := new(unix.RawSockaddrInet6), uint64(unix.SizeofSockaddrInet6)
	var pin runtime.Pinner // the ring knows the name by its number alone
	pin.Pin(name)
	defer pin.Unpin()
	rawSockaddr(name, to)
	if to.Addr().Is4() {
		length = unix.SizeofSockaddrInet4
	}
	s := (*uringSubmission)(unsafe.Pointer(&sqes[0]))
	*s = uringSubmission{opcode: uringOpConnect, fd: int32(fd), offset: length, addr: uint64(uintptr(unsafe.Pointer(name)))}
	if async {
		s.flags = uringAsync
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&rings[offset])) }
	*at(p.sq.array) = 0
	atomic.StoreUint32(at(p.sq.tail), atomic.LoadUint32(at(p.sq.tail))+1)
	_, _, errno = unix.Syscall6(unix.SYS_IO_URING_ENTER, ring, 1, 1, uringGetEvents, 0, 0)
	if errno != 0 {
		return errno
	}
	done := (*uringCompletion)(unsafe.Pointer(&rings[p.cq.cqes]))
	if done.result < 0 {
		return syscall.Errno(-done.result)
	}
	return nil
}
