package daemon

import (
	"errors"
	"io"
	"os"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/killpoint"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/observe"
)

// dataPath is what the daemon needs of package bpf. A test has one in memory.
type dataPath interface {
	lb.Datapath
	Attach(dir *os.File) error
	Check() error
	FDs() []bpf.NamedFD
	Want(hooks ...string)
	SetTraits(byVIP map[string]bpf.Traits) error
	Hints() (hints, error)
	Failures() (failures, error)
	Gone() <-chan struct{}
	Sweep() (bpf.Swept, error)
	Decisions() (observe.Reader, error)
	observe.Source
	Latencies() map[uint32]bpf.Latency
	Counters() (*bpf.CounterSnapshot, error)
	Recount() (corrected int, err error)
	LiveOf(index uint32) (uint64, error)
	RuleHits() ([]uint64, error)
	Seen() ([]bpf.Seen, error)
	ForgetSeen() error
	Missing() []bpf.Feature
	Close() error
}

// hints are the kernel's events, until io.EOF.
type hints interface {
	Read() (bpf.Event, error)
	io.Closer
}

// failures are connects that the kernel saw fail, until io.EOF.
type failures interface {
	Read() (bpf.Failure, error)
	io.Closer
}

// openDataPath takes over what handed holds, or makes a data plane that is
// empty and attached nowhere. The descriptors in handed are its own afterwards.
type openDataPath func(opts bpf.Options, handed []bpf.NamedFD) (opened, error)

type opened struct {
	dataPath
	adopted bool
	lost    error // why what was handed could not be taken over; nil else
}

// openKernel is openDataPath for real.
func openKernel(opts bpf.Options, handed []bpf.NamedFD) (opened, error) {
	d, err := bpf.Adopt(handed, opts)
	switch {
	case err == nil:
		return opened{dataPath: kernel{d}, adopted: true}, nil
	case errors.Is(err, bpf.ErrNothingStored):
		err = nil
	case errors.Is(err, bpf.ErrLayout):
		return opened{}, err // they go on: a downgrade is undone by an upgrade
	}
	// The store still holds what could not be taken over, so its programs run
	// until the new ones do.
	lost := err
	d, err = bpf.New(opts)
	if err != nil {
		return opened{}, errors.Join(err, lost)
	}
	return opened{dataPath: kernel{d}, lost: lost}, nil
}

// kernel is a bpf.Datapath whose events come as an interface, and that marks
// the moments at which tests end the process.
type kernel struct{ *bpf.Datapath }

func (k kernel) Hints() (hints, error) { return k.Events() }

func (k kernel) Failures() (failures, error) { return k.Datapath.Failures() }

func (k kernel) Decisions() (observe.Reader, error) {
	r, err := k.Datapath.Decisions()
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (k kernel) Apply(w bpf.Write) error {
	err := k.Datapath.Apply(w)
	killpoint.Here(w.String())
	return err
}

func (k kernel) Attach(dir *os.File) error {
	err := k.Datapath.Attach(dir)
	killpoint.Here("attach")
	return err
}
