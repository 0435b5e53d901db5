package health

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

// scripted is a prober without sockets: what a check does is a function's word.
type scripted struct {
	// answer says how long a check of an address takes, and how it ends. A check
	// that takes longer than its timeout is the checker's to end.
	answer func(addr netip.AddrPort, begun time.Time) (time.Duration, error)
	// sleepy, once set, keeps wait from returning for so long, and slow start.
	sleepy, slow time.Duration
	// work is how long each question for room has the process work, and worked how long
	// it has.
	work, worked time.Duration

	kick chan struct{}

	mu     sync.Mutex
	starts map[netip.AddrPort][]time.Time
	flying map[*flight]time.Time // when it ends
	most   int
}

func (s *scripted) start(f *flight) bool {
	s.mu.Lock()
	nap := s.slow
	s.slow = 0
	defer func() {
		s.mu.Unlock()
		time.Sleep(nap)
	}()
	now := time.Now()
	s.starts[f.probe.addr] = append(s.starts[f.probe.addr], now)
	d, err := s.answer(f.probe.addr, now)
	f.err = err
	if d == 0 {
		return true
	}
	s.flying[f] = now.Add(d)
	s.most = max(s.most, len(s.flying))
	return false
}

func (s *scripted) stop(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flying, f)
	f.err = errAnswerTimeout
}

func (s *scripted) wait(d time.Duration) (ended []*flight) {
	until := time.Now().Add(d)
	for _, at := range s.flying {
		if at.Before(until) {
			until = at
		}
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.kick:
	}
	s.mu.Lock()
	nap := s.sleepy
	s.sleepy = 0
	s.mu.Unlock()
	time.Sleep(nap)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for f, at := range s.flying {
		if !at.After(now) {
			delete(s.flying, f)
			ended = append(ended, f)
		}
	}
	return ended
}

func (s *scripted) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *scripted) room() int {
	s.mu.Lock()
	work := s.work
	s.mu.Unlock()
	time.Sleep(work)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.worked += work
	return maxOpen - len(s.flying)
}

func (s *scripted) processor() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.worked
}

// change changes what the prober's answers depend on.
func (s *scripted) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// launched is when each address was checked.
func (s *scripted) launched() map[netip.AddrPort][]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.starts)
}

// count is how often an address was checked.
func (s *scripted) count(a netip.AddrPort) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.starts[a])
}

func (s *scripted) own(*flight) bool { return false }
func (s *scripted) close() error     { return nil }

// bench is a checker on a scripted prober in a bubble.
type bench struct {
	*Checker
	*scripted
	t    *testing.T
	last map[Endpoint]State
	flip int // verdicts that changed
}

func run(t *testing.T, answer func(netip.AddrPort, time.Time) (time.Duration, error), f func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{answer: answer, kick: make(chan struct{}, 1), starts: map[netip.AddrPort][]time.Time{}, flying: map[*flight]time.Time{}}
		c := New()
		c.newProber = func(*errgroup.Group, context.Context) (prober, error) { return s, nil }
		c.processor = s.processor
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		synctest.Wait()
		b := &bench{Checker: c, scripted: s, t: t, last: map[Endpoint]State{}}
		f(b)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// pass lets d go by, and takes verdicts in.
func (b *bench) pass(d time.Duration) {
	end := time.After(d)
	for {
		select {
		case v := <-b.Verdicts():
			for tg, got := range v.All() {
				e := Endpoint{tg.VIP, tg.Addr}
				if was, ok := b.last[e]; ok && was != got.State {
					b.flip++
				}
				b.last[e] = got.State
			}
		case <-end:
			return
		}
	}
}

// checked lets time go by until the next check of an address has begun: when that is,
// nobody can say to less than a tenth of the interval.
func (b *bench) checked(a netip.AddrPort) {
	for n := b.count(a); b.count(a) == n; {
		b.pass(10 * time.Millisecond)
	}
}

func (b *bench) is(vip string, addr netip.AddrPort, want State) {
	b.t.Helper()
	if got := b.last[Endpoint{vip, addr}]; got != want {
		b.t.Errorf("%s: %s, want %s (%+v)", addr, got, want, b.Results()[Endpoint{vip, addr}])
	}
}

func addr(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 80)
}

func targets(n int, c *Check, assume State) []Target {
	out := make([]Target, n)
	for i := range out {
		out[i] = Target{VIP: "a", Addr: addr(i), Check: c, Assume: assume}
	}
	return out
}

var usual = Check{Interval: 2 * time.Second, Timeout: time.Second, Fall: 3, Rise: 2}

// switched is answers that can be changed by address.
type switched map[netip.AddrPort]error

func (s switched) answer(a netip.AddrPort, _ time.Time) (time.Duration, error) {
	return time.Millisecond, s[a]
}

func TestFallAndRise(t *testing.T) {
	refused := error(syscall.ECONNREFUSED)
	net := switched{addr(1): refused}
	run(t, net.answer, func(b *bench) {
		b.Set(targets(2, &usual, Unchecked))
		// The first check decides, whatever rise and fall say.
		b.pass(100 * time.Millisecond)
		b.is("a", addr(0), Up)
		b.is("a", addr(1), Down)
		b.flip = 0

		// One failure is none.
		b.pass(10 * time.Second)
		b.change(func() { net[addr(0)] = refused })
		b.checked(addr(0))
		b.change(func() { net[addr(0)] = nil })
		b.pass(10 * time.Second)
		b.is("a", addr(0), Up)

		// A backend that refuses is down within an interval and a timeout.
		b.change(func() { net[addr(0)] = refused })
		b.pass(usual.Interval + usual.Timeout)
		b.is("a", addr(0), Down)

		// One success is none, two are, at the usual pace.
		b.change(func() { net[addr(1)] = nil })
		b.checked(addr(1))
		b.pass(usual.Interval / 2)
		b.is("a", addr(1), Down)
		b.pass(usual.Interval/2 + 2*grain)
		b.is("a", addr(1), Up)
		if b.flip != 2 {
			t.Errorf("%d changes of verdicts, want 2", b.flip)
		}
	})
}

// A backend that says nothing is found out by its timeouts.
func TestSilence(t *testing.T) {
	quiet := false
	run(t, func(netip.AddrPort, time.Time) (time.Duration, error) {
		if quiet {
			return time.Hour, nil
		}
		return time.Millisecond, nil
	}, func(b *bench) {
		b.Set(targets(100, &usual, Unchecked))
		b.pass(5 * time.Second)
		b.change(func() { quiet = true })
		b.pass(usual.Interval + 4*usual.Timeout)
		for i := range 100 {
			b.is("a", addr(i), Down)
		}
		if got := b.Results()[Endpoint{"a", addr(0)}].Err; !errors.Is(got, errAnswerTimeout) {
			t.Errorf("error %v", got)
		}
	})
}

// What is known stands: on a restart, over another list, over another check.
func TestKnown(t *testing.T) {
	net := switched{}
	run(t, func(a netip.AddrPort, at time.Time) (time.Duration, error) { return 500 * time.Millisecond, net[a] }, func(b *bench) {
		since := time.Now().Add(-time.Hour)
		list := targets(3, &usual, Unchecked)
		list[0].Assume, list[0].Since = Up, since
		list[1].Assume, list[1].Since = Down, since
		first := b.Set(list)
		v := <-b.Verdicts()
		if v.Set != first || v.Unchecked != 1 {
			t.Errorf("set %d, %d unchecked", v.Set, v.Unchecked)
		}
		var got []State
		for _, v := range v.All() {
			got = append(got, v.State)
		}
		if got[0] != Up || got[1] != Down || got[2] != Unchecked {
			t.Errorf("%v", got)
		}
		if r := b.Results()[Endpoint{"a", addr(1)}]; !r.Since.Equal(since) {
			t.Errorf("since %v, want %v", r.Since, since)
		}
		b.pass(time.Second)
		b.is("a", addr(2), Up)
		b.is("a", addr(1), Down) // one success is not two

		// Another check of the same backends, and one backend less.
		other := usual
		other.Timeout = 2 * time.Second
		second := b.Set([]Target{
			{VIP: "a", Addr: addr(0), Check: &other}, {VIP: "a", Addr: addr(2), Check: &other, Assume: Down},
			{VIP: "b", Addr: addr(1), Check: &other},
		})
		v = <-b.Verdicts()
		if v.Set != second || v.Unchecked != 1 {
			t.Errorf("set %d, %d unchecked: another VIP's backend is new", v.Set, v.Unchecked)
		}
		b.last = map[Endpoint]State{}
		b.pass(time.Second)
		b.is("a", addr(0), Up)
		b.is("a", addr(2), Up)
		b.is("b", addr(1), Up)
		if n := b.Stats().Targets; n != 3 {
			t.Errorf("%d targets", n)
		}
		b.Set(nil)
		b.pass(time.Second)
		n := b.Stats().Checks
		b.pass(time.Minute)
		if got := b.Stats(); got.Checks != n || got.Open != 0 {
			t.Errorf("goes on without targets: %+v", got)
		}
	})
}

// One backend of many VIPs is checked once.
func TestShared(t *testing.T) {
	run(t, switched{}.answer, func(b *bench) {
		same := usual
		b.Set([]Target{{VIP: "a", Addr: addr(0), Check: &usual}, {VIP: "b", Addr: addr(0), Check: &same}})
		b.pass(time.Minute)
		b.is("a", addr(0), Up)
		b.is("b", addr(0), Up)
		if s := b.Stats(); s.Probes != 1 || s.Checks > 35 {
			t.Errorf("%+v", s)
		}
	})
}

// Checks are spread out, and on time.
func TestPace(t *testing.T) {
	run(t, switched{}.answer, func(b *bench) {
		b.Set(targets(1000, &usual, Unchecked))
		b.pass(time.Minute)
		starts, end := b.launched(), time.Now()
		for a, at := range starts {
			for i := 1; i < len(at); i++ {
				if gap := at[i].Sub(at[i-1]); gap < 1800*time.Millisecond || gap > usual.Interval+2*grain {
					t.Fatalf("%s: %v between two checks", a, gap)
				}
			}
		}
		var in [20]int // hundredths of a second of the last two
		for _, at := range starts {
			if ago := end.Sub(at[len(at)-1]); ago < 2*time.Second {
				in[ago/(100*time.Millisecond)]++
			}
		}
		for i, n := range in {
			if n > 200 {
				t.Errorf("%d of 1000 checks in one tenth of a second (%d)", n, i)
			}
		}
	})
}

// The process stands still for five minutes; backends' answers came and went
// meanwhile, and those that are slow time out at once by any clock but ours.
func TestStandstill(t *testing.T) {
	t.Run("in a wait", func(t *testing.T) { standstill(t, func(s *scripted, d time.Duration) { s.sleepy = d }) })
	t.Run("in a start", func(t *testing.T) { standstill(t, func(s *scripted, d time.Duration) { s.slow = d }) })
}

// A checker that has much to do has not stood still: who says nothing goes down all the
// same.
func TestWorkIsNoPause(t *testing.T) {
	strict := usual
	strict.Fall = 1
	run(t, func(netip.AddrPort, time.Time) (time.Duration, error) { return time.Hour, nil }, func(b *bench) {
		list := targets(1, &strict, Up)
		b.Set(list)
		b.pass(time.Millisecond)
		b.change(func() { b.work = strict.Timeout })
		b.pass(time.Minute)
		if got := b.last[Endpoint{list[0].VIP, addr(0)}]; got != Down {
			t.Errorf("it is %s", got)
		}
		b.change(func() { b.work = 0 })
		b.pass(time.Minute) // it holds no lock while it works no more
		if s := b.Stats(); s.Stalled != 0 || s.Void != 0 || s.Failed == 0 {
			t.Errorf("%+v", s)
		}
	})
}

func standstill(t *testing.T, pause func(*scripted, time.Duration)) {
	t.Helper()
	strict := usual
	strict.Fall = 1 // fault F19
	run(t, func(a netip.AddrPort, _ time.Time) (time.Duration, error) {
		return 900 * time.Millisecond, nil
	}, func(b *bench) {
		b.Set(targets(1000, &strict, Unchecked))
		b.pass(10 * time.Second)
		b.flip = 0
		for range 5 {
			b.change(func() { pause(b.scripted, 5*time.Minute) })
			b.pass(6 * time.Minute)
		}
		if b.flip != 0 {
			t.Errorf("%d changes of verdicts", b.flip)
		}
		if s := b.Stats(); s.Stalled < 24*time.Minute || s.Stalled > 26*time.Minute || s.Failed > 0 {
			t.Errorf("%+v", s)
		}
	})
	// Peers that had enough of us meanwhile have not failed.
	var closing error
	run(t, func(netip.AddrPort, time.Time) (time.Duration, error) { return 50 * time.Millisecond, closing }, func(b *bench) {
		b.Set(targets(1000, &strict, Up))
		b.pass(5 * time.Second)
		b.flip = 0
		for range 5 {
			b.change(func() { closing = errShort })
			b.pass(20 * time.Millisecond) // some are under way
			b.change(func() {
				closing = nil
				pause(b.scripted, 5*time.Minute)
			})
			b.pass(6 * time.Minute)
		}
		if s := b.Stats(); b.flip != 0 || s.Void == 0 {
			t.Errorf("%d changes of verdicts: %+v", b.flip, s)
		}
	})
}

// This host is short of descriptors or ports: that is no backend's fault.
func TestShortage(t *testing.T) {
	var short error
	strict := usual
	strict.Fall = 1
	run(t, func(netip.AddrPort, time.Time) (time.Duration, error) { return 0, short }, func(b *bench) {
		b.Set(targets(100, &strict, Unchecked))
		b.pass(5 * time.Second)
		b.flip = 0
		b.change(func() { short = &localError{syscall.EMFILE} })
		b.pass(time.Minute)
		if b.flip != 0 {
			t.Errorf("%d changes of verdicts", b.flip)
		}
		if r := b.Results()[Endpoint{"a", addr(0)}]; !errors.Is(r.Err, syscall.EMFILE) || r.State != Up {
			t.Errorf("%+v", r)
		}
		b.change(func() { short = syscall.ECONNREFUSED })
		b.pass(usual.Interval)
		b.is("a", addr(0), Down)
	})
}

// More silent backends than there may be descriptors: bounded, and all get
// their turn.
func TestRoom(t *testing.T) {
	slow := Check{Interval: time.Second, Timeout: time.Second, Fall: 2, Rise: 1}
	const n = maxOpen + maxOpen/2
	run(t, func(netip.AddrPort, time.Time) (time.Duration, error) { return time.Hour, nil }, func(b *bench) {
		b.Set(targets(n, &slow, Up))
		b.pass(20 * time.Second)
		var most int
		b.change(func() { most = b.most })
		if most > maxOpen {
			t.Errorf("%d under way at once", most)
		}
		for i := range n {
			b.is("a", addr(i), Down)
		}
		if s := b.Stats(); s.Late < 100*time.Millisecond {
			t.Errorf("late by %v only: it is not told", s.Late)
		}
	})
}

// A check that cannot be made leaves the verdict as it is.
func TestBroken(t *testing.T) {
	broken := usual
	broken.Broken = errors.New("no such file")
	run(t, switched{}.answer, func(b *bench) {
		b.Set(targets(1, &broken, Up))
		b.pass(time.Minute)
		b.is("a", addr(0), Up)
		if r := b.Results()[Endpoint{"a", addr(0)}]; r.Err == nil || r.Checks > 0 {
			t.Errorf("%+v", r)
		}
	})
}

// Verdicts that nobody reads are replaced.
func TestLatestWins(t *testing.T) {
	net := switched{}
	flappy := Check{Interval: 100 * time.Millisecond, Timeout: 100 * time.Millisecond, Fall: 1, Rise: 1}
	run(t, net.answer, func(b *bench) {
		b.Set(targets(1, &flappy, Up))
		for i := range 100 {
			b.change(func() { net[addr(0)] = map[bool]error{true: syscall.ECONNREFUSED}[i%2 == 0] })
			time.Sleep(200 * time.Millisecond)
		}
		b.change(func() { net[addr(0)] = syscall.ECONNREFUSED })
		time.Sleep(time.Second)
		for _, v := range (<-b.Verdicts()).All() {
			if v.State != Down {
				t.Errorf("an old verdict: %v", v)
			}
		}
		select {
		case <-b.Verdicts():
			t.Error("two values wait")
		default:
		}
	})
}

// Starts for which nobody waits share moments, fifty a second at the most, and
// none is late for it.
func TestStartsShareMoments(t *testing.T) {
	at := func(netip.AddrPort, time.Time) (time.Duration, error) { return time.Millisecond, nil }
	run(t, at, func(b *bench) {
		check := &Check{Interval: 2 * time.Second, Timeout: time.Second, Fall: 3, Rise: 2}
		var list []Target
		for i := range 1000 {
			list = append(list, Target{VIP: "a", Addr: loopback(1+i, 80), Check: check, Assume: Up})
		}
		b.Set(list)
		time.Sleep(20 * time.Second)
		moments := map[time.Time]bool{}
		for addr, starts := range b.launched() {
			for i, s := range starts {
				moments[s] = true
				if i == 0 {
					continue
				}
				if gap := s.Sub(starts[i-1]); gap > check.Interval || gap < check.Interval*9/10-startGrain {
					t.Fatalf("%v: %v between two checks", addr, gap)
				}
			}
		}
		// The first ones are not rounded to what is before now.
		if n := len(moments); n > 50*20+2 {
			t.Errorf("%d moments in 20 s", n)
		}
	})
}
