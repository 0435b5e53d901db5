package bpf

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL

// barrier waits until no program runs that began before. membarrier is refused
// where CPUs run without a tick (nohz_full); an update of a map in a map waits
// for an RCU grace period before it returns to user space, too.
type barrier struct {
	mu           sync.Mutex
	outer, inner *ebpf.Map
}

// Barrier returns when every program that was running when it was called has
// ended: what was taken out of the tables before is used by none. It takes some
// 10 ms, and holds no lock.
func (d *Datapath) Barrier() error {
	_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
	if errno == 0 {
		return nil
	}
	if err := d.barrier.wait(); err != nil {
		return fmt.Errorf("wait for running programs: membarrier: %w; map in map: %w", errno, err)
	}
	return nil
}

func (b *barrier) wait() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.outer == nil {
		inner := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
		outer, err := ebpf.NewMap(&ebpf.MapSpec{
			Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: inner,
		})
		if err != nil {
			return err
		}
		m, err := ebpf.NewMap(inner)
		if err != nil {
			return errors.Join(err, outer.Close())
		}
		b.outer, b.inner = outer, m
	}
	return b.outer.Put(uint32(0), b.inner)
}

func (b *barrier) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.outer == nil {
		return nil
	}
	return errors.Join(b.outer.Close(), b.inner.Close())
}
