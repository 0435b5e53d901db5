package unitwatch

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// What failed is tried again a second later, or as much later as its length asks for.
func TestFailedWalksAreTriedAgain(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		time.Millisecond:       failGap,
		500 * time.Millisecond: shareGap * 500 * time.Millisecond,
		10 * time.Second:       maxGap,
	} {
		synctest.Test(t, func(t *testing.T) {
			v := newWatch(New(Options{}), &hierarchy{err: errors.New("permission denied"), failures: 1})
			v.full = ""
			begun := time.Now()
			time.Sleep(took) // of the bubble's clock
			v.walkDone(begun, "start")
			if got := time.Until(v.nextWalk); got != want || v.full != "errors" || v.failures != 1 {
				t.Errorf("after %v: again in %v for %q, want %v", took, got, v.full, want)
			}
		})
	}
}
