//go:build slicelb_kill

package daemon

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The file that SLICELB_KILL_FILE names holds a number n; the n-th kill point after
// the file appeared ends the process, once: the file is removed first.
var killCount atomic.Int64

func killPoint(what string) {
	path := os.Getenv("SLICELB_KILL_FILE")
	if path == "" {
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		killCount.Store(0)
		return
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || killCount.Add(1) < n {
		return
	}
	fmt.Fprintf(os.Stderr, "kill point %d: %s\n", n, what)
	os.Remove(path)
	unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}
