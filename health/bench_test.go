package health

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkCheck is the cost of one check, in processor time of this process:
// the servers run in another, but what the kernel does for their side of a
// loopback connection is done in ours, and counted.
func BenchmarkCheck(b *testing.B) {
	for _, bb := range []struct {
		name  string
		check Check
	}{
		{"tcp", Check{}},
		{"http", Check{Type: HTTP, Path: "/", Expect: ok2xx}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			const backends = 5000
			port := servers(b)[0]
			check := bb.check
			check.Interval, check.Timeout, check.Fall, check.Rise = 2*time.Second, time.Second, 3, 2
			list := make([]Target, backends)
			for i := range list {
				list[i] = Target{VIP: "a", Addr: loopback(1+i, port), Check: &check, Assume: Up}
			}
			checker := start(b)
			checker.Set(list)
			// The pace is the benchmark: so many checks take as long as they take.
			wait := func(n uint64) {
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for from := checker.Stats().Checks; checker.Stats().Checks < from+n; <-tick.C {
				}
			}
			wait(backends)
			b.ResetTimer()
			before, begun, from := cpu(b), time.Now(), checker.Stats()
			wait(uint64(b.N))
			spent, took := cpu(b)-before, time.Since(begun)
			s := checker.Stats()
			n := s.Checks - from.Checks
			b.ReportMetric(float64(spent.Microseconds())/float64(n), "cpu-µs/check")
			b.ReportMetric(100*float64(spent)/float64(took), "%core")
			b.ReportMetric(float64(n)/took.Seconds(), "checks/s")
			b.ReportMetric(0, "ns/op")
			if s.Failed > from.Failed {
				b.Errorf("%d checks failed", s.Failed-from.Failed)
			}
		})
	}
}

// cpu is the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
