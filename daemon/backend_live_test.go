package daemon

import (
	"sync"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// A drained backend that a reload takes away has no sockets that are counted from the
// first write on: by then it is not said to be drained any more, or whoever waits would
// take it for empty.
func TestLiveOfOneThatLeaves(t *testing.T) {
	dp := newMemoryPath(lbtest.DefaultLimits)
	p := start(t, oneVIP+"[[vip.db.backend]]\naddress = \"192.0.2.2:80\"\n", dp, nil)
	p.await("well", well)
	leaves := api.BackendChange{VIP: "db", Address: "192.0.2.2:80", State: api.OrderDrain}
	if _, err := p.client.SetBackend(t.Context(), leaves); err != nil {
		t.Fatal(err)
	}
	order := func() string {
		live, err := p.client.Live(t.Context(), leaves)
		if err != nil || len(live.Backends) != 1 {
			t.Errorf("%+v, %v", live, err)
			return ""
		}
		return live.Backends[0].Order
	}
	if got := order(); got != api.OrderDrain {
		t.Errorf("drained, and said to be %q", got)
	}
	var first sync.Once
	during := "nobody asked"
	before := func(bpf.Write) { first.Do(func() { during = order() }) }
	dp.before.Store(&before)
	p.configure(oneVIP)
	if _, err := p.client.Reload(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	dp.before.Store(nil)
	if during != "" {
		t.Errorf("while it leaves it is said to be %q", during)
	}
}
