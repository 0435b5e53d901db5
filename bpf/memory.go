package bpf

import (
	"errors"
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

// sharing maps arrays' memory for a Datapath, and keeps the errors.
type sharing struct {
	d    *Datapath
	errs []error
}

// memory maps one array; the size is that of all its elements.
func (s *sharing) memory(name string) (m memory, size uint32) {
	array := s.d.maps[name]
	n, stride := array.MaxEntries(), (array.ValueSize()+7)&^7
	m, err := mapMemory(array, n, stride)
	if err != nil {
		s.errs = append(s.errs, err)
		return m, 0
	}
	s.d.memories = append(s.d.memories, m)
	return m, n * stride
}

// table is an array as Ts, of which an element holds one or several; nil where its
// memory could not be mapped.
func table[T any](s *sharing, name string) []T {
	m, size := s.memory(name)
	if size == 0 {
		return nil
	}
	var t T
	return elements[T](m, 0, size/uint32(unsafe.Sizeof(t)))
}

// share maps what the programs and the daemon both write.
func (d *Datapath) share(spec *ebpf.CollectionSpec) error {
	s := &sharing{d: d}
	d.frontendRefs = table[uint64](s, slicelbMapFrontendRefs)
	d.cells = table[uint64](s, slicelbMapCells)
	d.cellAffinity = table[uint64](s, slicelbMapCellAffinity)
	d.backendCells = table[uint64](s, slicelbMapBackendCells)
	d.backendTraits = table[uint64](s, slicelbMapBackendTraits)
	d.groups = table[uint64](s, slicelbMapGroups)
	d.pairKeys = table[uint64](s, slicelbMapPairKeys)
	d.slots = table[uint32](s, slicelbMapSlots)
	d.backends = table[slicelbSlbBackend](s, slicelbMapBackends)
	d.backendCounters = table[slicelbSlbBackendCounters](s, slicelbMapBackendCounters)
	d.cellInfos = table[slicelbSlbCellInfo](s, slicelbMapCellInfos)
	d.policyLines = table[policyLine](s, slicelbMapPolicyLines)
	d.groupInfos = table[slicelbSlbGroupInfo](s, slicelbMapGroupInfos)
	d.budgets = table[slicelbSlbTellBudget](s, slicelbMapTellBudgets)
	d.latencies = table[slicelbSlbLatency](s, slicelbMapLatencies)

	globals, _ := s.memory(spec.Variables[slicelbVarHostNetnsCookie].SectionName)
	if len(s.errs) > 0 {
		return errors.Join(s.errs...)
	}
	variable := func(name string) []uint64 {
		v := spec.Variables[name]
		return elements[uint64](globals, v.Offset, v.Size()/8)
	}
	d.hostNetns = &variable(slicelbVarHostNetnsCookie)[0]
	d.watch = watchWords{
		until: &variable(slicelbVarWatchUntil)[0], told: &variable(slicelbVarWatchTold)[0],
		group: &variable(slicelbVarWatchGroup)[0], cells: &variable(slicelbVarWatchCells)[0],
	}
	d.timeUntil = &variable(slicelbVarTimeUntil)[0]
	d.policyWord = &variable(slicelbVarPolicyWord)[0]
	d.cgroupRoom = (*int64)(unsafe.Pointer(&variable(slicelbVarCgroupRoom)[0]))
	d.frontends = newFilter(variable(slicelbVarFrontendFilter))
	d.backendFilter = newFilter(variable(slicelbVarBackendFilter))
	return nil
}
