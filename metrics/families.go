package metrics

import (
	"maps"
	"slices"
)

// families is every metric of slicelb's own.
var families = slices.Concat(serving, kernel, following, checking, process)

// one tells a number that has no labels.
func one(f func(*Reading) float64) func(*Reading, emit) {
	return func(r *Reading, emit emit) { emit(f(r)) }
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// words emits counts by words of this program.
func words(f func(*Reading) map[string]uint64) func(*Reading, emit) {
	return func(r *Reading, emit emit) {
		m := f(r)
		for _, k := range slices.Sorted(maps.Keys(m)) {
			emit(float64(m[k]), k)
		}
	}
}
