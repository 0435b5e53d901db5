package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/unitwatch"
)

// A version that does not know the layout of what the one before left touches none
// of it: the programs run on, the store keeps them, and status says so. fault F4
func TestUnknownLayoutServesOn(t *testing.T) {
	kerneltest.Root(t)
	before, err := bpf.New(bpf.Options{Slots: 1024, UDPFlows: 4096})
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	if err := before.Attach(kerneltest.NewCgroup(t).Open(t)); err != nil {
		t.Fatal(err)
	}
	m := fdstoretest.New(t)
	d := bare(t, m, nil)
	d.open, d.inherited = openKernel, true
	var names []string
	for _, f := range before.FDs() {
		fd, err := unix.FcntlInt(uintptr(f.FD), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		name := "slb9-" + strings.SplitN(f.Name, "-", 2)[1]
		d.handed = append(d.handed, fdstore.FD{Name: name, FD: fd, Poll: f.Poll})
		names = append(names, name)
	}
	defer func() { fdstore.Close(d.handed) }()
	ctx, cancel := context.WithCancel(t.Context())
	defer d.shut()
	defer cancel()
	d.running = sourceOf(t, oneVIP)
	d.snap = &unitwatch.Snapshot{Tree: d.running.tree, Complete: true}
	for range 2 {
		d.settle(ctx)
	}
	if !errors.Is(d.applyErr, bpf.ErrLayout) || !d.ready || d.dp.dataPath != nil {
		t.Errorf("ready %t, with a data plane %t: %v", d.ready, d.dp.dataPath != nil, d.applyErr)
	}
	if err := before.Check(); err != nil {
		t.Errorf("what ran: %v", err)
	}
	if got := m.Names(); !slices.Equal(got, names) {
		t.Errorf("the store has %q, want %q", got, names)
	}
	d.publish()
	if p := d.view.Load().problems; len(p) == 0 || !strings.Contains(p[0], "layout slb9; this program knows slb1") {
		t.Errorf("problems: %q", p)
	}
}
