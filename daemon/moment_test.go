package daemon

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
)

func TestFromMonotonic(t *testing.T) {
	before := time.Now()
	at := fromMonotonic(monotonic() - time.Second).Add(time.Second)
	const slack = 100 * time.Millisecond // of two clocks
	if after := time.Now(); at.Before(before.Add(-slack)) || at.After(after.Add(slack)) {
		t.Errorf("now is %v, which is %v after what is now", at, at.Sub(after))
	}
	if !moment(0).time().IsZero() || momentOf(time.Time{}) != 0 {
		t.Error("no time has become one")
	}
}

// The wall clock jumps by years between two processes: what was decided is as old as
// before. In a bubble of synctest it is the year 2000, outside it is not, and
// CLOCK_MONOTONIC is one and the same: one process is inside, the other outside.
func TestClockJumpsOverRestart(t *testing.T) { // fault F19
	src := parse(t, "[vip.db]\nfrontends = [\"10.96.0.10:80\"]\ndrain_timeout = \"20m\"\n[[vip.db.backend]]\naddress = \"192.0.2.1:80\"\n"+
		"[vip.db.health]\nslow_start = \"20m\"\n")
	one, two := endpointOf("db", "192.0.2.1:80"), endpointOf("db", "192.0.2.2:80")
	first := func(t *testing.T) *backendStates {
		b, now := newBackendStates(), time.Now()
		begun := now.Add(-10 * time.Minute)
		b.operator[one] = order{State: api.OrderDrain, Since: begun}
		b.operator[two] = order{State: api.OrderDrain, Since: now.Add(-30 * time.Minute)}
		b.units = unitsAre(discover.Unit{Name: "web@1.service", State: discover.Active, Since: begun})
		b.verdicts = verdictsOf(t, health.Target{VIP: one.VIP, Addr: one.Addr, Assume: health.Up, Since: begun})
		if err := b.seal(); err != nil {
			t.Fatal(err)
		}
		return b
	}
	next := func(t *testing.T, before *backendStates) {
		defer before.stateFile.Close()
		b := newBackendStates()
		if err := b.restore(before.wanted()); err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		if v, until := src.drainVerdict(one, b.operator[one], lb.Verdict{}, now); v.Down || until.Sub(now).Round(time.Second) != 10*time.Minute {
			t.Errorf("a drain of 20m that began 10m ago: %+v, over in %v", v, until.Sub(now))
		}
		if v, _ := src.drainVerdict(two, b.operator[two], lb.Verdict{}, now); !v.Down {
			t.Errorf("a drain of 20m that began 30m ago: %+v", v)
		}
		up := b.targets(src, nil)[0]
		if n, more := tenths(up.Since, 20*time.Minute, now); up.Assume != health.Up || n == 0 || more.IsZero() {
			t.Errorf("a slow start of 20m that began 10m ago: %v, %d tenths, more in %v", up.Assume, n, more.Sub(now))
		}
		if ago := now.Sub(b.units.List[0].Since).Round(time.Second); ago != 10*time.Minute {
			t.Errorf("a unit that has run for 10m runs for %v", ago)
		}
	}
	t.Run("back", func(t *testing.T) {
		before := first(t)
		synctest.Test(t, func(t *testing.T) { next(t, before) })
	})
	t.Run("forward", func(t *testing.T) {
		var before *backendStates
		synctest.Test(t, func(t *testing.T) { before = first(t) })
		next(t, before)
	})
}
