package health

import (
	"time"

	"golang.org/x/sys/unix"
)

// processorTime is how much of the processors' time the process has had.
func processorTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts) // cannot fail for this clock
	return time.Duration(ts.Nano())
}
