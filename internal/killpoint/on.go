//go:build slicelb_kill

package killpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// count is of the kill points since the file appeared that SLICELB_KILL_FILE names. It
// holds a number n; the n-th ends the process, once: the file is removed first. Or it
// holds "hang" and a word: the first one that begins with that never ends, and the rest of
// the process goes on.
var count atomic.Int64

// Here is such a moment: what has just been done.
func Here(what string) {
	path := os.Getenv("SLICELB_KILL_FILE")
	if path == "" {
		return
	}
	b, err := os.ReadFile(path)
	if err != nil {
		count.Store(0)
		return
	}
	if begin, ok := strings.CutPrefix(string(b), "hang "); ok && strings.HasPrefix(what, begin) {
		fmt.Fprintf(os.Stderr, "hangs at: %s\n", what)
		os.Remove(path)
		select {}
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || count.Add(1) < n {
		return
	}
	fmt.Fprintf(os.Stderr, "kill point %d: %s\n", n, what)
	os.Remove(path)
	unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}
