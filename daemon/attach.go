package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch"
)

// loadPatience is how long the service manager waits while programs are loaded. The
// verifier walks through a million instructions in one system call; on a machine that
// does much else that takes longer than a loop may hang, and all of them longer than a
// start may take.
const loadPatience = time.Minute

// openPath opens the data plane, with what was handed over.
func (d *daemon) openPath(ctx context.Context, cfg *config.Config) error {
	if d.dp.dataPath != nil {
		return nil
	}
	named, err := copies(d.handed)
	if err != nil {
		return err
	}
	opts := bpf.Options{Log: d.log, Build: d.build}
	if cfg != nil {
		opts.Slots, opts.UDPFlows = cfg.Daemon.Slots, cfg.Daemon.UDPFlows
	}
	var dp opened
	if err := d.notify.Patiently(loadPatience, func() { dp, err = d.open(opts, named) }); err != nil {
		d.log.Warn("notify", "err", err)
	}
	if err != nil {
		if !errors.Is(err, bpf.ErrForeign) {
			return fmt.Errorf("load the data plane: %w", err)
		}
		return err
	}
	if err := fdstore.Close(d.handed); err != nil {
		d.log.Warn("descriptors that were handed over", "err", err)
	}
	d.handed = nil
	if dp.lost != nil {
		d.log.Error("what the process before left cannot be adopted; a new data plane takes its place", "err", dp.lost)
	}
	d.dp, d.rec = dp, lb.NewReconciler(dp, d.log)
	d.tasks.Go(func() {
		// It ends with the context alone.
		if err := d.rec.Run(ctx); err != nil {
			d.log.Error("reconciler", "err", err)
		}
	})
	if dp.adopted {
		d.log.Info("adopted the data plane of the process before")
	}
	return nil
}

// adoptOnly takes over what was handed when there is no configuration to go
// by: what it serves, it goes on serving.
func (d *daemon) adoptOnly(ctx context.Context) error {
	if err := d.openPath(ctx, nil); err != nil {
		return err
	}
	if d.attached {
		return nil
	}
	return d.attach(ctx)
}

// attach runs the programs. The kernel maps new cgroups from here on; one that
// was made between the walk and this is found by another walk.
func (d *daemon) attach(ctx context.Context) error {
	if err := d.dp.Attach(d.rootDir); err != nil {
		return err
	}
	h, err := d.dp.Hints()
	if err != nil {
		return err // tried again: what is attached stays so
	}
	f, err := d.dp.Failures()
	if err != nil {
		return errors.Join(err, h.Close())
	}
	d.attached, d.kept.behind = true, true
	d.tasks.Go(func() { d.readHints(ctx, h) })
	d.tasks.Go(func() { d.readFailures(ctx, f) })
	dp := d.dp.dataPath
	d.tasks.Go(func() { d.terminate(ctx, dp) })
	context.AfterFunc(ctx, func() { h.Close(); f.Close() })
	d.hear(ctx)
	d.tasks.Go(func() { recount(ctx, d.dp, d.log) })
	d.resync(unitwatch.HintAll)
	return nil
}

// copies are for package bpf to own: opening may fail, and is tried again then.
func copies(fds []fdstore.FD) ([]bpf.NamedFD, error) {
	var out []bpf.NamedFD
	for _, f := range fds {
		fd, err := unix.FcntlInt(uintptr(f.FD), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			for _, c := range out {
				unix.Close(c.FD)
			}
			return nil, fmt.Errorf("copy descriptor %s: %w", f.Name, err)
		}
		out = append(out, bpf.NamedFD{Name: f.Name, FD: fd, Poll: f.Poll})
	}
	return out, nil
}
