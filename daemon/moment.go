package daemon

import (
	"time"

	"golang.org/x/sys/unix"
)

// moment is a time as the kernel tells it, and as it is kept for the next process: by
// CLOCK_MONOTONIC, which goes on over a restart, which nobody sets, and by which
// package time counts within a process. 0 is no time.
type moment time.Duration

func momentOf(t time.Time) moment {
	if t.IsZero() {
		return 0
	}
	return moment(monotonic() - time.Since(t))
}

// time is the moment by this process's clocks: what is counted from it does not
// depend on the wall clock, and what is shown is as long ago as it was.
func (m moment) time() time.Time {
	if m == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(m) - monotonic())
}

// fromMonotonic is the moment of an event of the kernel's.
func fromMonotonic(at time.Duration) time.Time { return moment(at).time() }

func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail for this clock
	return time.Duration(ts.Nano())
}
