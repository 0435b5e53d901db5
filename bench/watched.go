package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/slicelb/slicelb/bpf"
)

// attachWatched attaches the data plane of a VIP hit, with somebody who wants
// every decision. What was told and what was lost is printed at the end.
func (v *variant) attachWatched() error {
	d, err := v.attachPlane(1, 1, 1)
	if err != nil {
		return err
	}
	r, err := d.Decisions()
	if err != nil {
		return err
	}
	r.Poll(true)
	stop, renewed := make(chan struct{}), make(chan error, 1)
	go func() { renewed <- renew(d, stop) }()
	read := make(chan uint64, 1)
	go func() {
		var told uint64
		for e := new(bpf.Decision); r.Read(e) == nil; {
			told++
		}
		read <- told
	}()
	v.undo = append(v.undo, func() error {
		close(stop)
		err := errors.Join(<-renewed, r.Close())
		st, statErr := d.Stats()
		fmt.Fprintf(os.Stderr, "%s: %d decisions told, %d lost\n", v.name, <-read, st.DecisionsLost)
		return errors.Join(err, statErr)
	})
	return nil
}

// renew asks for everything until stop.
func renew(d *bpf.Datapath, stop <-chan struct{}) error {
	tick := time.NewTicker(bpf.WatchLease / 3)
	defer tick.Stop()
	for {
		if err := d.Watch(&bpf.Watch{Told: bpf.Tolds, AnyGroup: true}); err != nil {
			return err
		}
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
	}
}
