package health

import (
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// A suspect that fails its checks is down some 20 ms later, whatever the interval
// and fall; the one beside it is checked at its usual pace.
func TestSuspect(t *testing.T) {
	for _, fall := range []int{1, 3, 10} {
		check := usual
		check.Fall = fall
		net := switched{}
		run(t, net.answer, func(b *bench) {
			b.Set(targets(2, &check, Up))
			b.pass(10 * time.Second)
			others := b.count(addr(1))
			b.change(func() { net[addr(0)] = syscall.ECONNREFUSED })
			n := b.count(addr(0))
			b.Suspect(Endpoint{"a", addr(0)})
			b.pass(80 * time.Millisecond)
			b.is("a", addr(0), Down)
			b.is("a", addr(1), Up)
			if got := b.count(addr(0)) - n; got != fall {
				t.Errorf("fall %d: down after %d checks", fall, got)
			}
			if got := b.count(addr(1)) - others; got > 1 {
				t.Errorf("fall %d: %d checks of a backend that nobody suspects", fall, got)
			}
			// It comes back as any does.
			b.change(func() { net[addr(0)] = nil })
			b.pass(check.Interval*3 + time.Second)
			b.is("a", addr(0), Up)
		})
	}
}

// Suspicions of a backend that answers change nothing, however many there are,
// and cause ten checks a second at the most. // fault F31
func TestSuspicions(t *testing.T) {
	run(t, switched{}.answer, func(b *bench) {
		b.Set(targets(1, &usual, Up))
		b.pass(5 * time.Second)
		n, begun := b.count(addr(0)), time.Now()
		for range 3000 {
			b.Suspect(Endpoint{"a", addr(0)})
			b.Suspect(Endpoint{"b", addr(0)}) // nobody's
			b.pass(time.Millisecond)
		}
		got, most := b.count(addr(0))-n, int(time.Since(begun)/suspectGap)+2
		if got > most || got < most/2 {
			t.Errorf("%d checks in %v, want %d at most", got, time.Since(begun), most)
		}
		b.is("a", addr(0), Up)
		if b.flip != 0 || b.Stats().Suspected == 0 {
			t.Errorf("%d changes of verdicts, %+v", b.flip, b.Stats())
		}
		// And the usual pace goes on.
		n = b.count(addr(0))
		b.pass(time.Minute)
		if got := b.count(addr(0)) - n; got < 29 || got > 35 {
			t.Errorf("%d checks in a minute", got)
		}
	})
}

// One refused check is no verdict for a suspect either; a check that was under
// way when the suspicion came began too early to say.
func TestSuspectRecovers(t *testing.T) {
	fails := 0
	slow := false
	run(t, func(netip.AddrPort, time.Time) (time.Duration, error) {
		if slow {
			slow = false
			return 200 * time.Millisecond, nil
		}
		if fails > 0 {
			fails--
			return time.Millisecond, syscall.ECONNREFUSED
		}
		return time.Millisecond, nil
	}, func(b *bench) {
		b.Set(targets(1, &usual, Up))
		b.pass(5 * time.Second)
		b.change(func() { fails = usual.Fall - 1 })
		b.Suspect(Endpoint{"a", addr(0)})
		b.pass(100 * time.Millisecond)
		b.is("a", addr(0), Up)
		if fails != 0 {
			t.Errorf("%d failures are left: nobody looked", fails)
		}

		b.change(func() { slow = true })
		b.checked(addr(0))
		b.change(func() { fails = 100 })
		b.Suspect(Endpoint{"a", addr(0)})
		b.pass(100 * time.Millisecond)
		b.is("a", addr(0), Up)
		b.pass(200 * time.Millisecond)
		b.is("a", addr(0), Down)
	})
}

// What is down already is checked at its usual pace, whoever suspects it.
func TestSuspectDown(t *testing.T) {
	run(t, switched{addr(0): syscall.ECONNREFUSED}.answer, func(b *bench) {
		b.Set(targets(1, &usual, Up))
		b.pass(20 * time.Second)
		b.is("a", addr(0), Down)
		n := b.count(addr(0))
		for range 100 {
			b.Suspect(Endpoint{"a", addr(0)})
			b.pass(10 * time.Millisecond)
		}
		if got := b.count(addr(0)) - n; got > 1 {
			t.Errorf("%d checks in a second", got)
		}
	})
}
