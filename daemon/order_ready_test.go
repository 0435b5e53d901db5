package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// A backend that was drained while it was up, and does not listen any more, gets nothing
// when it is made ready: that is answered when a check has said so, not by what was found
// before. The next one is then not taken out, until the first one listens.
func TestReadyOfOneThatWasUp(t *testing.T) {
	one, two := listen(t), listen(t)
	// No check of its own comes in time.
	toml := checkedTOML("", one, two)
	toml = strings.Replace(toml, `interval = "100ms"`, `interval = "5m"`, 1)
	p := start(t, toml, newMemoryPath(lbtest.DefaultLimits), nil)
	p.await("both answer", func(s *api.Status) bool { return len(s.VIPs) == 1 && s.VIPs[0].Up == 2 })
	set := func(addr, state string, wait time.Duration) (*api.BackendChanged, error) {
		t.Helper()
		return p.client.SetBackend(t.Context(), api.BackendChange{VIP: "db", Address: addr, State: state, Wait: wait})
	}
	if _, err := set(one.addr, api.OrderDrain, 0); err != nil {
		t.Fatal(err)
	}
	one.close()
	out, err := set(one.addr, api.OrderReady, 0)
	if err != nil || !strings.Contains(out.Backends[0].Down, "connection refused") {
		t.Fatalf("%+v, %v", out, err)
	}
	p.backends("the one is out", "down", "active")

	begun := time.Now()
	if _, err := set(two.addr, api.OrderMaint, 100*time.Millisecond); err == nil || !strings.Contains(err.Error(), "should be one, and is not") {
		t.Errorf("the last one: %v", err)
	}
	if took := time.Since(begun); took < 100*time.Millisecond {
		t.Errorf("refused after %v, though the other was made ready a moment ago", took)
	}
	p.backends("the other serves on", "down", "active")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := p.client.SetBackend(ctx, api.BackendChange{VIP: "db", Address: two.addr, State: api.OrderMaint, Force: true}); err != nil {
		t.Errorf("all the same: %v", err)
	}
	one.open()
	for _, b := range []*backendAt{one, two} {
		if out, err := set(b.addr, api.OrderDrain, 0); err != nil {
			t.Errorf("%+v, %v", out, err)
		}
		if out, err := set(b.addr, api.OrderReady, 0); err != nil || out.Backends[0].Down != "" {
			t.Errorf("%+v, %v", out, err)
		}
	}
	p.backends("both serve", "active", "active")
}

// What another VIP uses, by checks that may be the same, is not out until it is checked
// anew.
func TestReadyOfWhatAnotherVIPUses(t *testing.T) {
	const checked = "[[vip.%s.backend]]\naddress = \"192.0.2.1:80\"\n[[vip.%[1]s.backend]]\naddress = \"192.0.2.2:80\"\n[vip.%[1]s.health]\n"
	src := parse(t, "[vip.a]\nfrontends = [\"10.96.0.10:80\"]\n"+fmt.Sprintf(checked, "a")+"[vip.b]\nfrontends = [\"10.96.0.11:80\"]\n"+fmt.Sprintf(checked, "b"))
	a1, a2, b1, b2 := endpointOf("a", "192.0.2.1:80"), endpointOf("a", "192.0.2.2:80"), endpointOf("b", "192.0.2.1:80"), endpointOf("b", "192.0.2.2:80")
	out := order{State: api.OrderDrain}
	for _, tt := range []struct {
		before    map[lb.Endpoint]order
		all, want []lb.Endpoint
	}{
		{map[lb.Endpoint]order{a1: out}, []lb.Endpoint{a1}, nil},
		{map[lb.Endpoint]order{a1: out, b1: out, a2: out}, []lb.Endpoint{a1}, []lb.Endpoint{a1}},
		{map[lb.Endpoint]order{a1: out, b1: out}, []lb.Endpoint{a1, b1, a2, b2}, []lb.Endpoint{a1, b1}},
	} {
		if got := newBackendStates().idle(src, tt.all, tt.before); !slices.Equal(got, tt.want) {
			t.Errorf("of %v with %v: %v, want %v", tt.all, tt.before, got, tt.want)
		}
	}
}
