package daemon

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLatency(t *testing.T) {
	var l latency
	if s := l.read(); s.Count != 0 || s.Within(time.Millisecond) != 1 || len(s.Buckets) != len(latencyBounds)+1 {
		t.Errorf("at first: %+v", s)
	}
	for _, d := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, 10 * time.Millisecond, time.Hour} {
		l.add(d)
	}
	s := l.read()
	for d, want := range map[time.Duration]float64{time.Millisecond: 0.4, 2 * time.Millisecond: 0.6, 10 * time.Millisecond: 0.8, time.Second: 0.8} {
		if got := s.Within(d); got != want {
			t.Errorf("within %v: %v, want %v", d, got, want)
		}
	}
	if s.Count != 5 || s.Last != time.Hour || s.Most != time.Hour {
		t.Errorf("%+v", s)
	}
}

func TestFromMonotonic(t *testing.T) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	at := fromMonotonic(time.Duration(ts.Nano()) - time.Second)
	if d := before.Sub(at); d < 900*time.Millisecond || d > 1100*time.Millisecond {
		t.Errorf("a second ago is %v ago", d)
	}
}
