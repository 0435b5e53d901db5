package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
)

// A VIP that takes more slots than are free stays as it is when its backends' states
// change, which is told; others change meanwhile, and so does it when it can.
// fault F14
func TestCrampedVIP(t *testing.T) {
	var big strings.Builder
	big.WriteString("[vip.big]\nfrontends = [\"10.96.0.12:80\"]\nalgorithm = \"maglev\"\n")
	for i := range 5 {
		fmt.Fprintf(&big, "[[vip.big.backend]]\naddress = \"192.0.2.%d:80\"\n", 11+i)
	}
	limits := lbtest.DefaultLimits
	limits.Slots = 700
	dp := newMemoryPath(limits)
	d := bare(t, fdstoretest.New(t), dp)
	ctx := t.Context()
	d.running, d.lockHeld = sourceOf(t, twoVIPs+big.String()), true
	d.see(ctx, &unitwatch.Snapshot{Tree: d.running.tree, Complete: true})
	if d.applyErr != nil {
		t.Fatal(d.applyErr)
	}
	defer func() { d.backends.stateFile.Close() }()
	say := func(vip, addr, state string) error {
		t.Helper()
		_, err := d.order(ctx, &backendChange{vip: vip, addr: endpointOf(vip, addr).Addr, state: state})
		return err
	}
	down := func(vip, addr string) bool { return d.kernel.Verdict(endpointOf(vip, addr)).Down }
	problems := func() string {
		d.publish()
		return strings.Join(d.view.Load().problems, "\n")
	}
	const cramped = "vip.big: what has become of its backends is not in the kernel: table slots "

	// An order that cannot be carried out is refused, and holds up nothing.
	if err := say("big", "192.0.2.11:80", api.OrderMaint); err == nil || !strings.Contains(err.Error(), "table slots (700 entries) has no room for vip big") {
		t.Errorf("maint: %v", err)
	}
	d.settle(ctx)
	if text := problems(); d.applyErr != nil || strings.Contains(text, cramped) {
		t.Errorf("after an order that was refused: %v, %s", d.applyErr, text)
	}

	// What nobody orders is told, and again when something else is decided.
	d.backends.operator = map[lb.Endpoint]order{endpointOf("big", "192.0.2.11:80"): {State: api.OrderMaint, Since: time.Now()}}
	d.backends.count()
	d.settle(ctx)
	for _, state := range []string{api.OrderMaint, api.OrderReady, api.OrderMaint} {
		if err := say("db", "192.0.2.1:80", state); err != nil {
			t.Fatal(err)
		}
		if down("db", "192.0.2.1:80") != (state == api.OrderMaint) || down("big", "192.0.2.11:80") {
			t.Errorf("%s: db's is down: %t, big's: %t", state, down("db", "192.0.2.1:80"), down("big", "192.0.2.11:80"))
		}
		if text := problems(); d.applyErr != nil || !strings.Contains(text, cramped) {
			t.Errorf("%s: %v, %s", state, d.applyErr, text)
		}
	}

	// It is tried again, whatever is decided; a configuration that has no room beside what
	// it replaces is refused as before.
	if d.retryCramped(time.Now()); len(d.cramped.vips) != 1 {
		t.Error("tried again at once")
	}
	if d.retryCramped(time.Now().Add(2 * partRetry)); len(d.cramped.vips) != 0 || d.applied {
		t.Error("not tried again")
	}
	if err := say("big", "192.0.2.11:80", api.OrderReady); err != nil {
		t.Error(err)
	}
	if text := problems(); strings.Contains(text, cramped) {
		t.Errorf("it is as it is to be: %s", text)
	}
	other := sourceOf(t, twoVIPs+big.String()+"weight = 7\n")
	if _, err := d.apply(ctx, other, d.snap); err == nil || len(d.cramped.vips) != 0 {
		t.Errorf("another configuration: %v", err)
	}
}
