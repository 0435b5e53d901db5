package daemon

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// verdictsOf is what a checker says of targets before it has checked any.
func verdictsOf(t *testing.T, targets ...health.Target) *health.Verdicts {
	t.Helper()
	check := &health.Check{Broken: errors.New("no checks here"), Interval: time.Hour, Timeout: time.Second, Fall: 1, Rise: 1}
	for i := range targets {
		targets[i].Check = check
	}
	c := health.New()
	c.Set(targets)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	v := <-c.Verdicts()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return v
}

// A restart waits for first checks only where some caller would find nothing.
func TestBare(t *testing.T) {
	const four, five, six, canary = "192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80", "192.0.2.3:80"
	src := parse(t, "[group.canary]\nslices = [\"canary.slice\"]\n[vip.db]\nfrontends = [\"10.96.0.10:80\", \"[fd00:96::10]:80\"]\n"+
		"[[vip.db.backend]]\naddress = \""+four+"\"\n[[vip.db.backend]]\naddress = \""+five+"\"\n[[vip.db.backend]]\naddress = \""+six+"\"\n"+
		"[vip.db.health]\n[[vip.db.for.canary.backend]]\naddress = \""+canary+"\"\n[[vip.db.for.canary.backend]]\naddress = \""+six+"\"\n")
	up, down, unchecked := health.Up, health.Down, health.Unchecked
	for _, tt := range []struct {
		name   string
		states map[string]health.State
		want   bool
	}{
		{"all up", map[string]health.State{four: up, five: up, six: up, canary: up}, false},
		{"one of two unknown", map[string]health.State{four: up, five: unchecked, six: up, canary: up}, false},
		{"one down, one unknown", map[string]health.State{four: down, five: unchecked, six: up, canary: up}, true},
		{"all known to be down", map[string]health.State{four: down, five: down, six: down, canary: down}, false},
		{"a family unknown", map[string]health.State{four: up, five: up, six: unchecked, canary: up}, true},
		{"a view unknown", map[string]health.State{four: up, five: up, six: up, canary: unchecked}, true},
		{"one in maintenance", map[string]health.State{four: up, six: up, canary: up}, false},
	} {
		b := newBackendStates()
		var targets []health.Target
		for addr, state := range tt.states {
			targets = append(targets, health.Target{VIP: "db", Addr: endpointOf("db", addr).Addr, Assume: state})
		}
		if !b.bare(src) {
			t.Errorf("%s: before anything is known nothing is waited for", tt.name)
		}
		b.verdicts = verdictsOf(t, targets...)
		if got := b.bare(src); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

// A start waits for every first check, and one that has inherited something, which serves
// meanwhile, for one of each list.
func TestWhoWaitsForFirstChecks(t *testing.T) {
	d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
	d.running = parse(t, oneVIP+"[[vip.db.backend]]\naddress = \"192.0.2.2:80\"\n[vip.db.health]\n")
	d.listening = time.Now()
	target := func(addr string, state health.State) health.Target {
		return health.Target{VIP: "db", Addr: endpointOf("db", addr).Addr, Assume: state}
	}
	for _, tt := range []struct {
		other            health.State // of a backend, while the first one's check has not ended
		inherited, waits bool
	}{
		{health.Up, false, true},
		{health.Up, true, false},
		{health.Down, true, true},
	} {
		d.backends.verdicts = verdictsOf(t, target("192.0.2.1:80", health.Unchecked), target("192.0.2.2:80", tt.other))
		d.backends.verdicts.Unchecked = 1
		d.inherited = tt.inherited
		if got := d.unchecked(); got != tt.waits {
			t.Errorf("the other one is %s, inherited %t: waits %t", tt.other, tt.inherited, got)
		}
	}
}
