package daemon

import (
	"slices"
	"sync"
	"time"

	"github.com/slicelb/slicelb/api"
)

// latencyBounds are those of the buckets; a last one takes the rest.
var latencyBounds = []time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second,
}

// latency counts how long something took. Anyone may use it.
type latency struct {
	mu  sync.Mutex
	sum api.Latency
}

func (l *latency) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sum.Buckets == nil {
		l.sum = newLatency()
	}
	i, _ := slices.BinarySearch(latencyBounds, d)
	l.sum.Buckets[i].Count++
	l.sum.Count++
	l.sum.Sum += d
	l.sum.Last, l.sum.Most = d, max(l.sum.Most, d)
}

func (l *latency) read() api.Latency {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sum.Buckets == nil {
		return newLatency()
	}
	out := l.sum
	out.Buckets = slices.Clone(out.Buckets)
	return out
}

func newLatency() api.Latency {
	l := api.Latency{Buckets: make([]api.Bucket, len(latencyBounds)+1)}
	for i, b := range latencyBounds {
		l.Buckets[i].Most = b
	}
	return l
}
