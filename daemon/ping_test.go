package daemon

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// A reload of many writes gives signs of life while they get done, and none while
// one hangs. fault F24
func TestPingsWhileItWrites(t *testing.T) {
	const watchdog = 200 * time.Millisecond
	m := fdstoretest.New(t)
	environment := m.Environment()
	environment["WATCHDOG_USEC"] = fmt.Sprint(watchdog.Microseconds())
	dp := newMemoryPath(lbtest.DefaultLimits)
	p := start(t, oneVIP, dp, environment)
	p.await("well", well)
	pings := func() int {
		n := 0
		for _, line := range m.Said() {
			if line == "WATCHDOG=1" {
				n++
			}
		}
		return n
	}
	var many strings.Builder
	for i := range 200 {
		fmt.Fprintf(&many, "[vip.v%d]\nfrontends = [\"10.97.0.%d:80\"]\n[[vip.v%d.backend]]\naddress = \"192.0.2.1:80\"\n", i, i+1, i)
	}
	p.configure(many.String())

	var once sync.Once
	hung, release := make(chan struct{}), make(chan struct{})
	begun, last := 0, 0
	slow := func(bpf.Write) {
		if begun == 0 {
			begun = pings() + 1
		}
		// Each write takes its time until the watchdog has heard thrice of them.
		if last = pings(); last < begun+3 {
			<-time.After(watchdog / 10)
			return
		}
		once.Do(func() { close(hung); <-release })
	}
	dp.before.Store(&slow)
	failed := make(chan error, 1)
	go func() {
		_, err := p.client.Reload(t.Context(), time.Minute)
		failed <- err
	}()
	select {
	case <-hung:
	case <-time.After(20 * time.Second):
		t.Fatal("no sign of life while it writes")
	}
	// One that was on its way may still come; then silence, for longer than the
	// watchdog waits.
	silent, since := pings(), time.Now()
	late := 0
	for tick := time.Tick(5 * time.Millisecond); time.Since(since) < 2*watchdog; <-tick {
		if n := pings(); n != silent {
			silent, since, late = n, time.Now(), late+1
		}
		if late > 1 {
			t.Error("signs of life while a write hangs")
			break
		}
	}
	dp.before.Store(nil)
	close(release)
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	p.await("all of them", func(s *api.Status) bool { return len(s.VIPs) == 200 })
}
