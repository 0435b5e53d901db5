package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"syscall"

	"github.com/slicelb/slicelb/bpf"
)

var specs = []struct {
	name   string
	addr   netip.AddrPort
	attach func(*variant) error
}{
	{"bare", directAddr, nil},
	{"empty", directAddr, (*variant).attachEmpty},
	{"hit", vipAddr, (*variant).attachSlicelb},
	{"miss", directAddr, (*variant).attachSlicelb},
}

func (v *variant) attachSlicelb() error {
	d, err := bpf.New(bpf.Options{})
	if err != nil {
		return err
	}
	v.undo = append(v.undo, d.Close)
	fi, err := os.Stat(v.scope())
	if err != nil {
		return err
	}
	id := fi.Sys().(*syscall.Stat_t).Ino
	for _, w := range []bpf.Write{
		bpf.SetGroup{Index: 1, Group: bpf.Group{Name: "g", Translate: true}},
		bpf.PutCgroup{ID: id, Rule: bpf.Rule{Group: 1}},
		bpf.SetCellInfo{Index: 1, Info: bpf.CellInfo{VIP: "v", Family: 4}},
		bpf.SetBackend{Index: 1, Backend: bpf.Backend{Addr: backendAddr, Gen: 1, Cell: 1}},
		bpf.SetBackendCell{Index: 1, Cell: bpf.BackendCell{State: bpf.BackendActive, Gen: 1}},
		bpf.SetSlots{Base: 16, Slots: []uint32{1}},
		bpf.SetCell{Index: 1, Cell: bpf.Cell{Base: 16, Count: 1, Action: bpf.Balance, Gen: 1}},
		bpf.SetFrontendRef{Index: 1, Ref: bpf.FrontendRef{Cell: 1, Gen: 1}},
		bpf.SetFrontendRef{Index: 2, Ref: bpf.FrontendRef{Cell: 1, Gen: 1}},
		bpf.PutFrontend{Key: bpf.FrontendKey{Addr: vipAddr, Proto: bpf.TCP}, Index: 1},
		bpf.PutFrontend{Key: bpf.FrontendKey{Addr: vipAddr, Proto: bpf.UDP}, Index: 2},
	} {
		if err := d.Apply(w); err != nil {
			return err
		}
	}
	dir, err := os.Open(v.cgroup)
	if err != nil {
		return err
	}
	defer dir.Close()
	return d.Attach(dir)
}

func runApply(ctx context.Context, out io.Writer) error { return fmt.Errorf("later") }
