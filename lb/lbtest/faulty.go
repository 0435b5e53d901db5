package lbtest

import (
	"errors"

	"github.com/slicelb/slicelb/bpf"
)

// ErrFault is what Faulty fails with.
var ErrFault = errors.New("injected fault")

// Faulty is maps whose calls fail when Fail says so.
type Faulty struct {
	*Maps
	Fail func(call string) bool
}

func (f *Faulty) Apply(w bpf.Write) error {
	if f.Fail(w.String()) {
		return ErrFault
	}
	return f.Maps.Apply(w)
}

func (f *Faulty) Dump() (*bpf.Dump, error) {
	if f.Fail("dump") {
		return nil, ErrFault
	}
	return f.Maps.Dump()
}

func (f *Faulty) Cgroups() (map[uint64]bpf.Rule, error) {
	if f.Fail("cgroups") {
		return nil, ErrFault
	}
	return f.Maps.Cgroups()
}

func (f *Faulty) Barrier() error {
	if f.Fail("barrier") {
		return ErrFault
	}
	return f.Maps.Barrier()
}
