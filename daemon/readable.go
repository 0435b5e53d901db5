package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
)

// openPatience is how long after a start answers wait for it to take over what the
// process before left. Its counters are that one's, and its groups have members: to tell zeros
// meanwhile would be a lie, and a reset to who counts.
const openPatience = 2 * time.Second

// opening is passed once, when what was handed over is served by this process, or could
// not be taken over; at once, where nothing was.
type opening struct {
	passed chan struct{}
	once   sync.Once
}

func (o *opening) pass() { o.once.Do(func() { close(o.passed) }) }

// unread says that the kernel holds what this process has not opened, at any rate not
// yet.
func (d *daemon) unread() bool { return d.dp.dataPath == nil && len(d.handed) > 0 }

// now is what is known, if need be a moment later: when what was handed over is taken
// over.
func (a answers) now(ctx context.Context) *view {
	ctx, cancel := context.WithDeadline(ctx, a.d.started.Add(openPatience))
	defer cancel()
	select {
	case <-a.d.opening.passed:
	case <-ctx.Done():
	}
	return a.d.view.Load()
}

// readable is what is known, of a kernel that can be read.
func (a answers) readable(ctx context.Context) (*view, error) {
	v := a.now(ctx)
	if v.unread {
		return nil, &api.Error{Code: api.Busy, Text: unreadText, Hint: "slicelb status says why"}
	}
	return v, nil
}

const unreadText = "what the process before left serves, and cannot be read by this one yet: VIPs, groups and what is counted are not known"

// unreadable is why the kernel was not read.
func unreadable(what string, err error) error {
	if errors.Is(err, bpf.ErrClosed) {
		return api.Errorf(api.Busy, "the daemon stops")
	}
	return fmt.Errorf("read %s: %w", what, err)
}
