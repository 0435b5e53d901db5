package daemon

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
)

// An order that the process before has stored is done when the kernel has it, not
// when it is found to be there already; and none is taken while what that process
// left serves on.
func TestOrderSaidBefore(t *testing.T) {
	dp := newMemoryPath(lbtest.DefaultLimits)
	d := bare(t, fdstoretest.New(t), dp)
	d.configPath = filepath.Join(t.TempDir(), "slicelb.toml")
	if err := os.WriteFile(d.configPath, []byte(oneVIP), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer d.tasks.Wait()
	defer dp.Close()
	defer cancel()
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	d.inherited = true
	if d.takesOrders() {
		t.Error("an order is taken before the kernel is up to date")
	}
	d.see(ctx, &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
	defer d.state.Close()
	if !d.ready || !d.takesOrders() {
		t.Fatalf("ready: %t, %v", d.ready, d.applyErr)
	}

	addr := netip.MustParseAddrPort("192.0.2.1:80")
	d.backends.operator = map[lb.Endpoint]order{{VIP: "db", Addr: addr}: {State: api.OrderDrain}}
	d.backends.count()
	d.applied = false // nothing of that is in the kernel yet
	answer, err := d.order(ctx, &backendChange{vip: "db", addr: addr, state: api.OrderDrain})
	if err != nil || answer.Before != api.OrderDrain {
		t.Fatalf("%+v, %v", answer, err)
	}
	defer d.backends.stateFile.Close()
	dump, err := dp.Dump()
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range dump.BackendCells {
		if c.State == bpf.BackendActive {
			t.Errorf("backend %d is active", i)
		}
	}
}
