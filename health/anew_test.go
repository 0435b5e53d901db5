package health

import (
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// A backend that failed is checked as if it was new: at once, by a check that began
// after that was asked for, and one success is enough. One that is up stays so.
func TestAnew(t *testing.T) {
	slow := Check{Interval: 30 * time.Second, Timeout: 10 * time.Second, Fall: 1, Rise: 5}
	var down error = syscall.ECONNREFUSED
	takes := time.Duration(0)
	run(t, func(a netip.AddrPort, _ time.Time) (time.Duration, error) {
		if a == addr(1) {
			return time.Millisecond, nil
		}
		return takes, down
	}, func(b *bench) {
		list := targets(2, &slow, Unchecked)
		b.Set(list)
		b.pass(time.Second)
		b.is(list[0].VIP, addr(0), Down)
		b.is(list[1].VIP, addr(1), Up)
		both := []Endpoint{{list[0].VIP, addr(0)}, {list[1].VIP, addr(1)}, {"nobody's", addr(7)}}

		b.change(func() { takes = 5 * time.Second })
		b.pass(29 * time.Second) // one that fails, slowly, is under way
		before := b.count(addr(0))
		b.change(func() { down, takes = nil, time.Millisecond })
		checks := b.count(addr(1))
		b.Anew(both)
		b.Set(list)
		b.pass(100 * time.Millisecond)
		b.is(list[0].VIP, addr(0), Up)
		b.is(list[1].VIP, addr(1), Up)
		if n := b.count(addr(0)); n != before+1 {
			t.Errorf("%d checks more, want 1", n-before)
		}
		if n := b.count(addr(1)); n != checks {
			t.Errorf("what is up is checked once more")
		}

		// The verdicts that follow know of it before its check has ended.
		b.change(func() { down = syscall.ECONNREFUSED })
		b.pass(40 * time.Second)
		b.is(list[0].VIP, addr(0), Down)
		b.change(func() { down, takes = nil, 5*time.Second })
		b.Anew(both[:1])
		set := b.Set(list)
		for v := range b.Verdicts() {
			if v.Set < set {
				continue
			}
			for tg, got := range v.All() {
				if tg.Addr == addr(0) && got.State != Unchecked {
					t.Errorf("while it is checked anew: %s", got.State)
				}
			}
			break
		}
	})
}

// Of a backend that is forgotten nothing holds that was found before, nor what a check
// finds that began before: not even that it is up.
func TestForget(t *testing.T) {
	slow := Check{Interval: 30 * time.Second, Timeout: 10 * time.Second, Fall: 3, Rise: 5}
	var refused error
	takes := time.Millisecond
	run(t, func(netip.AddrPort, time.Time) (time.Duration, error) { return takes, refused }, func(b *bench) {
		list := targets(2, &slow, Unchecked)
		b.Set(list)
		b.pass(time.Second)
		b.is(list[0].VIP, addr(0), Up)
		b.change(func() { takes = 5 * time.Second })
		b.pass(29 * time.Second) // one that would succeed, slowly, is under way
		b.change(func() { takes, refused = time.Millisecond, syscall.ECONNREFUSED })
		b.Forget([]Endpoint{{list[0].VIP, addr(0)}})
		b.Set(list)
		b.pass(100 * time.Millisecond)
		b.is(list[0].VIP, addr(0), Down)
		b.is(list[1].VIP, addr(1), Up)

		// It comes back by rise, and then by one check, since when it is up.
		b.change(func() { refused = nil })
		b.pass(5 * time.Second)
		b.is(list[0].VIP, addr(0), Down)
		before := time.Now()
		b.Forget([]Endpoint{{list[0].VIP, addr(0)}})
		b.pass(100 * time.Millisecond)
		b.is(list[0].VIP, addr(0), Up)
		if r := b.Results()[Endpoint{list[0].VIP, addr(0)}]; r.Since.Before(before) {
			t.Errorf("up since %v, before it was forgotten", r.Since)
		}
	})
}
