package daemon

import (
	"context"
	"log/slog"
	"time"
)

// Live counts are counted anew when a process begins, which may have adopted
// them from one that was killed, and then again and again.
const (
	recountFirst    = time.Second // from the first to the second, which corrects
	recountInterval = 10 * time.Second
)

// recount keeps the live counts true until ctx ends.
func recount(ctx context.Context, dp dataPath, log *slog.Logger) {
	t := time.NewTimer(0)
	defer t.Stop()
	failed := false
	for wait := recountFirst; ; wait = recountInterval {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		n, err := dp.Recount()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failed:
			log.Warn("live counts cannot be checked", "err", err)
		case n > 0:
			log.Info("live counts were off and are corrected", "backends", n)
		}
		failed = err != nil
		t.Reset(wait)
	}
}
