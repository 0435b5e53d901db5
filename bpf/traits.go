package bpf

import (
	"maps"
	"sync/atomic"
)

// Traits are what is done with the sockets of a VIP's backends, beside choosing.
type Traits struct {
	Passive      bool // failed connects are reported: see Failures
	TerminateUDP bool // connected sockets are closed when their backend goes: see Sweep
	TerminateTCP bool
}

func (t Traits) word(gen uint32) uint64 {
	var flags uint32
	for _, bit := range []struct {
		set  bool
		flag uint32
	}{{t.Passive, traitPassive}, {t.TerminateUDP, traitTerminateUDP}, {t.TerminateTCP, traitTerminateTCP}} {
		if bit.set {
			flags |= bit.flag
		}
	}
	return word(flags, gen)
}

// SetTraits gives each VIP's backends their traits, those that come later too.
// What a backend had when it went stands until its index is used again. Calling
// it with what is so already costs nothing.
func (d *Datapath) SetTraits(byVIP map[string]Traits) error {
	if err := d.acquire(); err != nil {
		return err
	}
	defer d.release()
	d.write.Lock()
	defer d.write.Unlock()
	if d.traits != nil && maps.Equal(d.traits, byVIP) {
		return nil
	}
	d.traits = maps.Clone(byVIP)
	if d.traits == nil {
		d.traits = map[string]Traits{}
	}
	for i := range d.backends {
		d.setTraits(uint32(i))
	}
	return nil
}

// setTraits writes one backend's word. A VIP that nobody knows any more is on its
// way out: its backends keep what they have.
func (d *Datapath) setTraits(index uint32) {
	b := &d.backends[index]
	if b.Generation == 0 || int(b.Cell) >= len(d.cellInfos) || d.traits == nil {
		return
	}
	w := &d.backendTraits[index]
	t, ok := d.traits[text(d.cellInfos[b.Cell].Vip[:], len(d.cellInfos[b.Cell].Vip))]
	if _, gen := halves(atomic.LoadUint64(w)); !ok && gen == b.Generation {
		return
	}
	atomic.StoreUint64(w, t.word(b.Generation))
}
