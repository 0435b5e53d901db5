// Package scale sizes tests that count to many thousands: whole in `make soak`,
// a fraction of it in `make test`.
package scale

import (
	"os"
	"strconv"
)

// Var names the environment variable that holds the fraction, above 0. Unset
// or unusable means Default.
const Var = "SLICELB_SCALE"

// Default is the fraction for `make test` and a bare `go test`.
const Default = 0.02

// Count returns the scaled part of whole, at least 1.
func Count(whole int) int {
	return max(1, int(float64(whole)*Factor()))
}

// Factor is the fraction in force.
func Factor() float64 {
	f, err := strconv.ParseFloat(os.Getenv(Var), 64)
	if err != nil || !(f > 0) {
		return Default
	}
	return f
}
