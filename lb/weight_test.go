package lb

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSlotCounts(t *testing.T) {
	for _, c := range []struct {
		name    string
		weights []uint32
		limit   uint32
		want    []uint32
	}{
		{"nothing", nil, 10, []uint32{}},
		{"all zero", []uint32{0, 0}, 10, []uint32{0, 0}},
		{"equal", []uint32{7, 7, 7}, 10, []uint32{1, 1, 1}},
		{"common divisor", []uint32{30, 0, 20}, 10, []uint32{3, 0, 2}},
		{"just fits", []uint32{9, 1}, 10, []uint32{9, 1}},
		{"largest remainder", []uint32{65, 35, 11}, 10, []uint32{6, 3, 1}},
		{"at least one", []uint32{1000000, 1000000, 1}, 11, []uint32{5, 5, 1}},
		{"small ones push others down", []uint32{100, 9, 8, 1, 1, 1}, 10, []uint32{5, 1, 1, 1, 1, 1}},
		{"more backends than slots", []uint32{5, 1, 3, 2}, 3, []uint32{1, 1, 1, 1}},
		{"largest weights", []uint32{1<<32 - 1, 1<<32 - 2, 1}, 4096, []uint32{2048, 2047, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, slotCounts(c.weights, c.limit)); diff != "" {
				t.Errorf("slotCounts(%v, %d) (-want +got):\n%s", c.weights, c.limit, diff)
			}
		})
	}
}

// Every weight above 0 has a slot, 0 has none, a greater one never has fewer,
// and the limit holds unless there are more backends.
func TestSlotCountsAreFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.OneOf(rapid.Uint32Range(0, 5), rapid.Uint32()), 0, 40).Draw(t, "weights")
		limit := rapid.Uint32Range(1, 64).Draw(t, "limit")
		counts := slotCounts(weights, limit)
		var total, some uint32
		for i, n := range counts {
			total += n
			if weights[i] > 0 {
				some++
			}
			if (n > 0) != (weights[i] > 0) {
				t.Fatalf("weight %d has %d slots", weights[i], n)
			}
			for j := range counts {
				if weights[i] > weights[j] && n < counts[j] {
					t.Fatalf("weight %d has %d slots, weight %d has %d", weights[i], n, weights[j], counts[j])
				}
			}
		}
		if total > max(limit, some) {
			t.Fatalf("%d slots, limit %d, %d backends", total, limit, some)
		}
	})
}
