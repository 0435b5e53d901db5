package bpf

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// The kernel adds to the table of cgroups and deletes from it, as the daemon does.
// Both keep count of the room for directories that others than root have made; see
// has_room in anchor.h. A kill between a change and its count puts the number wrong by
// one: it is set anew when the table is read and nothing changes meanwhile.

type cgroupKey uint64

func (k cgroupKey) String() string { return fmt.Sprintf("cgroup %d", uint64(k)) }

// OthersCgroups is how many entries directories that root has not made may bring the
// table of cgroups to: an eighth of it is root's alone.
func (l Limits) OthersCgroups() uint64 { return uint64(l.Cgroups) - uint64(l.Cgroups)/8 }

// putCgroup inserts a word, whoever made the directory: what the daemon wants has
// been counted already.
func (d *Datapath) putCgroup(id, word uint64) error {
	err := d.insert(slicelbMapCgroups, cgroupKey(id), id, word)
	if err == nil {
		atomic.AddInt64(d.cgroupRoom, -1)
	}
	return err
}

// delCgroup deletes an entry, absent or not.
func (d *Datapath) delCgroup(id uint64) error {
	err := d.maps[slicelbMapCgroups].Delete(id)
	switch {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return nil
	case err == nil:
		atomic.AddInt64(d.cgroupRoom, 1)
	}
	return err
}

// countCgroups sets the room, where a walk has found so many entries. before is what
// the room was when the walk began: where it is another by now, the walk may have
// missed what came or went, and those who made it so have counted it.
func (d *Datapath) countCgroups(before int64, entries int) {
	room := int64(d.Limits().OthersCgroups()) - int64(entries)
	atomic.CompareAndSwapInt64(d.cgroupRoom, before, room)
}
