package api

import "time"

// Latency is how long something took, each time.
type Latency struct {
	Count   uint64        `json:"count"`
	Last    time.Duration `json:"last_ns"`
	Most    time.Duration `json:"most_ns"`
	Sum     time.Duration `json:"sum_ns"`
	Buckets []Bucket      `json:"buckets"`
}

// Bucket counts what took at most so long, and longer than the one before.
type Bucket struct {
	Most  time.Duration `json:"most_ns"` // 0 in the last: however long
	Count uint64        `json:"count"`
}

// Within is the part of all that took at most d, the bound of a bucket; 1 where
// there was nothing.
func (l Latency) Within(d time.Duration) float64 {
	if l.Count == 0 {
		return 1
	}
	var n uint64
	for _, b := range l.Buckets {
		if b.Most != 0 && b.Most <= d {
			n += b.Count
		}
	}
	return float64(n) / float64(l.Count)
}
