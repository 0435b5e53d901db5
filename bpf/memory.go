package bpf

import (
	"fmt"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// memory is an array map's contents, shared with the programs. What they read
// at any time is stored by one aligned 8-byte atomic store; what nothing names
// yet is written plainly, and published by such a store.
type memory struct {
	bytes []byte
}

// mapMemory maps an array map of n elements, each size bytes apart.
func mapMemory(m *ebpf.Map, n, size uint32) (memory, error) {
	page := uint64(os.Getpagesize())
	length := (uint64(n)*uint64(size) + page - 1) &^ (page - 1)
	b, err := unix.Mmap(m.FD(), 0, int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return memory{}, fmt.Errorf("map memory of %s: %w", m, err)
	}
	return memory{bytes: b}, nil
}

func (m *memory) unmap() error {
	if m.bytes == nil {
		return nil
	}
	err := unix.Munmap(m.bytes)
	m.bytes = nil
	return err
}

// elements sees n elements of the memory as a slice; T has no Go pointers and
// the layout that bpf2go gave it.
func elements[T any](m memory, offset, n uint32) []T {
	var t T
	if end := uint64(offset) + uint64(n)*uint64(unsafe.Sizeof(t)); end > uint64(len(m.bytes)) {
		panic(fmt.Sprintf("bpf: %d bytes of shared memory wanted, %d mapped", end, len(m.bytes)))
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&m.bytes[offset])), n)
}
