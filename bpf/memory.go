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

// shared is elements, of nothing where the memory could not be mapped.
func shared[T any](m memory, n uint32) []T {
	if n == 0 {
		return nil
	}
	return elements[T](m, 0, n)
}

// share maps what the programs and the daemon both write.
func (d *Datapath) share(spec *ebpf.CollectionSpec) error {
	var errs []error
	share := func(name string) (m memory, n uint32) {
		n = d.maps[name].MaxEntries()
		m, err := mapMemory(d.maps[name], n, (d.maps[name].ValueSize()+7)&^7)
		if err != nil {
			errs = append(errs, err)
			return m, 0
		}
		d.memories = append(d.memories, m)
		return m, n
	}
	words := func(name string) []uint64 {
		m, n := share(name)
		return shared[uint64](m, n)
	}
	d.frontendRefs = words(slicelbMapFrontendRefs)
	d.cells = words(slicelbMapCells)
	d.cellAffinity = words(slicelbMapCellAffinity)
	d.backendCells = words(slicelbMapBackendCells)
	d.backendTraits = words(slicelbMapBackendTraits)
	d.groups = words(slicelbMapGroups)
	d.pairKeys = words(slicelbMapPairKeys)
	m, n := share(slicelbMapSlots)
	d.slots = shared[uint32](m, n*slotsPerElem)
	m, n = share(slicelbMapBackends)
	d.backends = shared[slicelbSlbBackend](m, n)
	m, n = share(slicelbMapBackendCounters)
	d.backendCounters = shared[slicelbSlbBackendCounters](m, n)
	m, n = share(slicelbMapCellInfos)
	d.cellInfos = shared[slicelbSlbCellInfo](m, n)
	m, n = share(slicelbMapPolicyLines)
	d.policyLines = shared[policyLine](m, n)
	m, n = share(slicelbMapGroupInfos)
	d.groupInfos = shared[slicelbSlbGroupInfo](m, n)

	m, n = share(slicelbMapTellBudgets)
	d.budgets = shared[slicelbSlbTellBudget](m, n)
	m, n = share(slicelbMapLatencies)
	d.latencies = shared[slicelbSlbLatency](m, n)

	globals, _ := share(spec.Variables[slicelbVarHostNetnsCookie].SectionName)
	if len(errs) > 0 {
		return errors.Join(errs...)
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
	d.frontends = newFilter(variable(slicelbVarFrontendFilter))
	d.backendFilter = newFilter(variable(slicelbVarBackendFilter))
	return nil
}
