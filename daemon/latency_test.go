package daemon

import (
	"testing"
	"time"
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
