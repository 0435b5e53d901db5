package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch"
)

// apply makes the kernel equal to src and snap. Nothing is loaded or attached
// before there is a VIP or a policy. The maps are filled before the first hook is attached,
// so that no call meets a half of them.
//
// Where units that run find no room in the tables, some of them are left out, and a VIP
// whose change finds none stays as it is.
func (d *daemon) apply(ctx context.Context, src *source, snap *unitwatch.Snapshot) (writes int, err error) {
	d.retryCramped(time.Now())
	for {
		writes, err = d.write(ctx, d.fitting(src), snap)
		var limit *lb.LimitError
		if errors.As(err, &limit) && (d.keepCramped(src, limit) || d.leaveOut(src, limit)) {
			continue
		}
		if unfit(err) != nil {
			d.trim.Store(true) // what came to nothing
		}
		if writes > 0 && d.part != nil {
			d.part.again = time.Time{} // what was replaced is free in a moment
		}
		return writes, err
	}
}

// write makes the kernel equal to src and snap, all of it or nothing.
func (d *daemon) write(ctx context.Context, src *source, snap *unitwatch.Snapshot) (writes int, err error) {
	if d.dp.dataPath == nil && src.cfg.Idle() && len(d.handed) == 0 {
		return 0, nil
	}
	d.ping()
	state, err := d.compile(src, snap)
	d.ping()
	if err != nil {
		return 0, err
	}
	if err := d.openPath(ctx, src.cfg); err != nil {
		return 0, err
	}
	if err := d.setTraits(src); err != nil {
		return 0, err
	}
	result, err := d.reconcile(ctx, state)
	writes = result.Writes
	d.reconciled.add(result.Duration)
	if err == nil {
		d.kernel, d.kernelSaid, d.found, d.left = state, src.said, nil, result.Left
	}
	d.writes += uint64(writes)
	if writes > 0 {
		d.observer.Refresh()
	}
	if err == nil {
		d.tellVIPs(d.desired)
	}
	switch {
	case err != nil || !snap.Complete:
		return writes, err
	case d.attached:
		return writes, d.rehook(src.cfg)
	}
	d.hooked = optionalHooks(src.cfg)
	d.dp.Want(d.hooked...)
	return writes, d.attach(ctx)
}

// compile keeps what follows from the configuration and the backends' states: a
// cgroup that comes or goes costs nothing for each VIP, and a backend that fails
// or recovers costs its own VIP.
func (d *daemon) compile(src *source, snap *unitwatch.Snapshot) (*lb.State, error) {
	members := membership(snap)
	members.Self = d.self
	now, b := time.Now(), d.backends
	same := d.desired != nil && d.desiredFor == src
	if same && d.desiredOf == b.version && !b.due(now) {
		return d.desired.WithMembers(members), nil
	}
	if d.broken.of == src {
		return nil, d.broken.err
	}
	rt := b.runtime(src, now)
	d.asKernelHas(src, rt)
	var state *lb.State
	var err error
	if same {
		state, err = d.desired.WithMembers(members).WithVerdicts(rt.Verdicts)
	} else if err = tooDeep(src.cfg, d.rootLevel); err == nil {
		state, err = lb.Compile(src.cfg, src.tree, members, rt)
	}
	if err != nil {
		d.broken = broken{src, &compileError{err}}
		return nil, d.broken.err
	}
	d.desired, d.desiredFor, d.desiredOf = state, src, b.version
	return state, nil
}

// membership is a snapshot in the words of package lb.
func membership(s *unitwatch.Snapshot) lb.Membership {
	m := lb.Membership{Complete: s.Complete, Walked: s.Walked, Cgroups: make([]lb.Member, len(s.Cgroups))}
	for i, c := range s.Cgroups {
		m.Cgroups[i] = lb.Member{ID: c.ID, Path: c.Path, Match: c.Match, Group: c.Group, Foreign: c.Foreign, Closed: c.Closed}
	}
	return m
}
