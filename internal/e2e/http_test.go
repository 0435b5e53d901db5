package e2e

import (
	"fmt"
	"os"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// playHTTP is an HTTP server that says when it is ready, and ends gracefully.
func playHTTP(args []string) int {
	if err := kerneltest.ServeHTTP(args[0], func() error { return sdNotify("READY=1") }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
