package bpf

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"
)

// barrier waits until no program runs that began before: an update of a map in a
// map waits for an RCU grace period before it returns to user space. membarrier(2)
// is no such wait where one CPU is online: it returns at once there, though a
// preempted program may still hold an old word.
type barrier struct {
	mu           sync.Mutex
	outer, inner *ebpf.Map
}

// Barrier returns when every program that was running when it was called has
// ended: what was taken out of the tables before is used by none. It takes some
// 10 ms, and no write waits for it.
func (d *Datapath) Barrier() error {
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.release()
	outer, inner, err := d.barrier.maps()
	if err == nil {
		err = outer.Put(uint32(0), inner)
	}
	if err != nil {
		return fmt.Errorf("wait for running programs: %w", err)
	}
	return nil
}

func (b *barrier) maps() (outer, inner *ebpf.Map, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.outer != nil {
		return b.outer, b.inner, nil
	}
	spec := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	outer, err = ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: spec,
	})
	if err != nil {
		return nil, nil, err
	}
	if inner, err = ebpf.NewMap(spec); err != nil {
		return nil, nil, errors.Join(err, outer.Close())
	}
	b.outer, b.inner = outer, inner
	return outer, inner, nil
}

func (b *barrier) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.outer == nil {
		return nil
	}
	return errors.Join(b.outer.Close(), b.inner.Close())
}
