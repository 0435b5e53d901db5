package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/lb"
)

// backendChange is an operator's wish.
type backendChange struct {
	vip   string
	addr  netip.AddrPort
	state string // drain, maint or ready
	uid   uint32
	done  chan backendChanged // buffered
}

type backendChanged struct {
	answer *api.BackendChanged
	err    error
}

// SetBackend takes a backend out, or back in. It returns when the kernel has it
// and a restart would not forget it.
func (a answers) SetBackend(ctx context.Context, q api.BackendChange) (*api.BackendChanged, error) {
	addr, err := netip.ParseAddrPort(q.Address)
	if err != nil {
		return nil, api.Errorf(api.BadRequest, "backend %q: want ADDRESS:PORT", q.Address)
	}
	switch q.State {
	case orderDrain, orderMaint, orderReady:
	default:
		return nil, api.Errorf(api.BadRequest, "state %q: want drain, maint or ready", q.State)
	}
	c := &backendChange{q.VIP, netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), q.State, q.UID, make(chan backendChanged, 1)}
	select {
	case a.d.backends.changes <- c:
	case <-ctx.Done():
		return nil, api.Errorf(api.Timeout, "backend %s: the daemon is busy", q.Address)
	}
	out := <-c.done
	return out.answer, out.err
}

// change does what an operator wishes.
func (d *daemon) change(ctx context.Context, c *backendChange) {
	answer, err := d.order(ctx, c)
	c.done <- backendChanged{answer, err}
}

func (d *daemon) order(ctx context.Context, c *backendChange) (*api.BackendChanged, error) {
	if d.running == nil {
		return nil, api.Errorf(api.Failed, "no configuration runs")
	}
	var vip *config.VIP
	for i := range d.running.cfg.VIPs {
		if d.running.cfg.VIPs[i].Name == c.vip {
			vip = &d.running.cfg.VIPs[i]
		}
	}
	if vip == nil {
		return nil, &api.Error{Code: api.NotFound, Text: fmt.Sprintf("no VIP %q", c.vip), Hint: "slicelb vip list"}
	}
	found := false
	endpoints(vip, func(b config.Backend) { found = found || b.Addr == c.addr })
	if !found {
		return nil, &api.Error{
			Code: api.NotFound, Text: fmt.Sprintf("VIP %s has no backend %s", c.vip, c.addr), Hint: "slicelb backend list --vip " + c.vip,
		}
	}
	b, e := d.backends, lb.Endpoint{VIP: c.vip, Addr: c.addr}
	before := b.operator[e]
	out := &api.BackendChanged{Before: before.State}
	if out.Before == "" {
		out.Before = orderReady
	}
	if out.Before == c.state {
		return out, nil
	}
	put := func(o order) {
		b.operator = maps.Clone(b.operator) // the API reads the old one
		if o.State == "" {
			delete(b.operator, e)
		} else {
			b.operator[e] = o
		}
		b.count()
	}
	next := order{c.state, time.Now(), c.uid}
	if c.state == orderReady {
		next = order{}
	}
	put(next)
	if d.ready && d.snap != nil {
		writes, err := d.apply(ctx, d.running, d.snap)
		d.note(err)
		if err != nil {
			put(before)
			d.applied = false // back, at the next tick
			return nil, api.Errorf(api.Failed, "backend %s: %v", c.addr, err)
		}
		out.Writes = writes
	}
	if c.state == orderMaint || before.State == orderMaint {
		if p := d.pending; p != nil && p.source != nil {
			b.watch(p.source, d.running)
		} else {
			b.watch(d.running, nil)
		}
	}
	d.log.Info("backend "+c.state, "event", eventBackendOrdered, "vip", c.vip, "backend", c.addr, "uid", c.uid)
	if err := b.seal(); err != nil {
		d.log.Error("store what was said of backends", "err", err)
		out.Forgotten = err.Error()
		return out, nil
	}
	b.saved = time.Now()
	d.keep(ctx, false)
	if d.storeErr != nil {
		out.Forgotten = d.storeErr.Error()
	}
	return out, nil
}
