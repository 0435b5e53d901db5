package kerneltest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
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
	uringWakeup     = 1 << 1
	uringPolling    = 1 << 1 // IORING_SETUP_SQPOLL: a thread of the kernel's looks for submissions
	uringSingleMmap = 1
)

// ring is one of io_uring, with room for one submission.
type ring struct {
	fd      int
	p       uringParams
	rings   []byte
	entries []byte
}

func setupRing(flags uint32) (*ring, error) {
	r := &ring{p: uringParams{flags: flags, threadIdle: 1000}}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&r.p)), 0)
	if errno != 0 {
		return nil, errno
	}
	r.fd = int(fd)
	if r.p.features&uringSingleMmap == 0 {
		return nil, errors.Join(unix.ENOSYS, unix.Close(r.fd))
	}
	if err := r.open(); err != nil {
		return nil, errors.Join(err, unix.Close(r.fd))
	}
	return r, nil
}

// open maps what the ring shares with the kernel.
func (r *ring) open() (err error) {
	size := max(r.p.sq.array+4*r.p.sqEntries, r.p.cq.cqes+r.p.cqEntries*uint32(unsafe.Sizeof(uringCompletion{})))
	if r.rings, err = unix.Mmap(r.fd, uringSQRing, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	r.entries, err = unix.Mmap(r.fd, uringSQEs, int(r.p.sqEntries)*64, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	return err
}

func (r *ring) close() {
	_ = unix.Munmap(r.entries)
	_ = unix.Munmap(r.rings)
	_ = unix.Close(r.fd)
}

func (r *ring) word(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[offset])) }

// fill writes a connect into the ring, without submitting it. The name is read
// by its number, in the process that made the ring: it must stay until then.
func (r *ring) fill(fd int, to netip.AddrPort, name *unix.RawSockaddrInet6, flags uint8) {
	length := uint64(unix.SizeofSockaddrInet6)
	rawSockaddr(name, to)
	if to.Addr().Is4() {
		length = unix.SizeofSockaddrInet4
	}
	*(*uringSubmission)(unsafe.Pointer(&r.entries[0])) = uringSubmission{
		opcode: uringOpConnect, flags: flags, fd: int32(fd), offset: length, addr: uint64(uintptr(unsafe.Pointer(name))),
	}
	*r.word(r.p.sq.array) = 0
}

func (r *ring) submit() {
	tail := r.word(r.p.sq.tail)
	atomic.StoreUint32(tail, atomic.LoadUint32(tail)+1)
}

func (r *ring) enter(submit, wait, flags uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, wait, flags, 0, 0)
	return orNil(errno)
}

func (r *ring) result() error {
	if done := (*uringCompletion)(unsafe.Pointer(&r.rings[r.p.cq.cqes])); done.result < 0 {
		return syscall.Errno(-done.result)
	}
	return nil
}

// uringConnect connects fd through a ring of its own.
func uringConnect(fd int, to netip.AddrPort, async bool) error {
	r, err := setupRing(0)
	if err != nil {
		return err
	}
	defer r.close()
	name := new(unix.RawSockaddrInet6)
	var pin runtime.Pinner
	pin.Pin(name)
	defer pin.Unpin()
	var flags uint8
	if async {
		flags = uringAsync
	}
	r.fill(fd, to, name, flags)
	r.submit()
	if err := r.enter(1, 1, uringGetEvents); err != nil {
		return err
	}
	return r.result()
}

// uringConnectByHeir connects fd through a ring with a polling thread, at the
// word of a child that inherits the ring and is in another cgroup.
func uringConnectByHeir(fd int, to netip.AddrPort, cgroup string) error {
	r, err := setupRing(uringPolling)
	if err != nil {
		return err
	}
	defer r.close()
	name := new(unix.RawSockaddrInet6)
	var pin runtime.Pinner
	pin.Pin(name)
	defer pin.Unpin()
	r.fill(fd, to, name, 0)

	shared, err := unix.Dup(r.fd)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(shared), "io_uring")
	defer file.Close()
	raw := unsafe.Slice((*byte)(unsafe.Pointer(&r.p)), unsafe.Sizeof(r.p))
	heir := exec.Command(exe)
	heir.Env = append(os.Environ(), heirEnv+"="+hex.EncodeToString(raw)+" "+cgroup)
	heir.ExtraFiles = []*os.File{file}
	if out, err := heir.CombinedOutput(); err != nil {
		return fmt.Errorf("the child that inherits the ring: %w: %s", err, out)
	}
	if err := r.enter(0, 1, uringGetEvents); err != nil {
		return err
	}
	return r.result()
}

// beHeir submits what is in the ring that it inherited, from another cgroup.
func beHeir(text string) error {
	params, cgroup, _ := strings.Cut(text, " ")
	raw, err := hex.DecodeString(params)
	if err != nil {
		return err
	}
	r := &ring{fd: 3}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&r.p)), unsafe.Sizeof(r.p)), raw)
	if err := enter(cgroup); err != nil {
		return err
	}
	if err := r.open(); err != nil {
		return err
	}
	r.submit()
	return r.enter(0, 0, uringWakeup)
}
