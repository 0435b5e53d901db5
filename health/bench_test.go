package health

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkCheck is the cost of a check, in processor time of this process, with
// 5,000 backends every two seconds: the servers run in another process, but what
// the kernel does for their side of a loopback connection is done in ours, and
// counted. Turn by turn with it goes a loop that does no more than the checks have
// to: as many connects in as many wake-ups, each ended by a reset in place of the
// ack, on sockets that are used again. "x-bare" is how many times as much a check costs.
func BenchmarkCheck(b *testing.B) {
	const (
		backends = 5000
		interval = 2 * time.Second
	)
	for _, bb := range []struct {
		name  string
		check Check
	}{
		{"tcp", Check{}},
		{"http", Check{Type: HTTP, Path: "/", Expect: ok2xx}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			port := servers(b)[0]
			check := bb.check
			check.Interval, check.Timeout, check.Fall, check.Rise = interval, time.Second, 3, 2
			list := make([]Target, backends)
			for i := range list {
				list[i] = Target{VIP: "a", Addr: loopback(1+i, port), Check: &check, Assume: Up}
			}
			checker, bare := start(b), newBareLoop(b, list)
			var checks, connects spending
			for done := 0; done < b.N; done += backends {
				checker.Set(list)
				// The first round is spread anew, and starts what is kept for later ones.
				time.Sleep(interval)
				from, failed := checker.Stats().Checks, checker.Stats().Failed
				checks.during(b, func() int {
					time.Sleep(interval)
					return int(checker.Stats().Checks - from)
				})
				if n := checker.Stats().Failed - failed; n > 0 {
					b.Errorf("%d checks failed", n)
				}
				checker.Set(nil)
				time.Sleep(interval / 10)
				connects.during(b, func() int { return bare.run(b, interval) })
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(checks.each(checks.user), "user-µs/check")
			b.ReportMetric(checks.each(checks.sys), "sys-µs/check")
			b.ReportMetric(100*float64(checks.user+checks.sys)/float64(checks.took), "%core")
			b.ReportMetric(float64(checks.n)/checks.took.Seconds(), "checks/s")
			b.ReportMetric(connects.each(connects.user), "user-µs/bare")
			b.ReportMetric(connects.each(connects.sys), "sys-µs/bare")
			b.ReportMetric(checks.each(checks.user+checks.sys)/connects.each(connects.user+connects.sys), "x-bare")
		})
	}
}

// bareLoop connects, on 64 sockets in turn.
type bareLoop struct {
	to   [][]byte
	fds  [64]int
	next int
}

func newBareLoop(b *testing.B, list []Target) *bareLoop {
	l := &bareLoop{}
	for _, t := range list {
		l.to = append(l.to, sockaddr(t.Addr))
	}
	for i := range l.fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { unix.Close(fd) })
		l.fds[i] = fd
	}
	return l
}

// run connects for a while, at the pace of the checks, and returns how often.
func (l *bareLoop) run(b *testing.B, d time.Duration) (n int) {
	begun := time.Now()
	tick := time.NewTicker(startGrain)
	defer tick.Stop()
	for time.Since(begun) < d {
		<-tick.C
		// As many as are due by now: the checks' mean interval is 95 % of theirs.
		for ; n < int(time.Since(begun)*time.Duration(len(l.to))*100/95/(2*time.Second)); n++ {
			l.next++
			fd, to := l.fds[l.next%len(l.fds)], l.to[l.next%len(l.to)]
			disconnect(fd)
			_ = forget(fd) // without CAP_NET_ADMIN the checks open a socket each time
			putAckOff(fd)
			if err := connect(fd, to); err != nil {
				b.Fatal(err)
			}
		}
	}
	return n
}

// spending is processor time that this process has used, for what.
type spending struct {
	n               int
	user, sys, took time.Duration
}

// during adds what is spent while f runs, which returns for how many.
func (s *spending) during(b *testing.B, f func() int) {
	b.Helper()
	user, sys := cpu(b)
	begun := time.Now()
	s.n += f()
	s.took += time.Since(begun)
	u, k := cpu(b)
	s.user, s.sys = s.user+u-user, s.sys+k-sys
}

// each is µs for each of what was done.
func (s *spending) each(d time.Duration) float64 { return float64(d.Microseconds()) / float64(s.n) }

// cpu is the processor time that this process has used.
func cpu(b *testing.B) (user, sys time.Duration) {
	b.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano()), time.Duration(r.Stime.Nano())
}
