package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch"
)

// backendChange is an operator's wish.
type backendChange struct {
	unit  string // "" = vip and addr say which
	vip   string
	addr  netip.AddrPort
	state string // drain, maint or ready
	uid   uint32
	wait  time.Duration // at the most; 0: nobody has said
	force bool
	ctx   context.Context     // of who asks; what has not begun when it ends is not done
	done  chan backendChanged // buffered

	// Of the loop, while it waits: see patience.
	until   time.Time
	over    bool        // another about the same has come
	asked   func() bool // nil, or whether systemd has said anew how units stand
	askedAt time.Time
	answer  *api.BackendChanged
	all     []lb.Endpoint
	set     uint64 // of the checks that its backends have now
}

type backendChanged struct {
	answer *api.BackendChanged
	err    error
}

func (c *backendChange) String() string {
	if c.unit != "" {
		return "backends of unit " + prose.Foreign(c.unit)
	}
	return "backend " + c.addr.String()
}

// SetBackend takes backends out, or back in. It returns when the kernel has it,
// no call is on its way that has not seen it, and a restart would not forget it; where
// backends are back in and checked, when their first check has ended, too.
func (a answers) SetBackend(ctx context.Context, q api.BackendChange) (*api.BackendChanged, error) {
	c := &backendChange{unit: q.Unit, vip: q.VIP, state: q.State, uid: q.UID, wait: q.Wait, force: q.Force, ctx: ctx, done: make(chan backendChanged, 1)}
	if q.Unit == "" {
		var err error
		if c.addr, err = parseBackend(q.Address); err != nil {
			return nil, err
		}
	}
	switch q.State {
	case api.OrderDrain, api.OrderMaint, api.OrderReady:
	default:
		return nil, api.Errorf(api.BadRequest, "state %q: want drain, maint or ready", q.State)
	}
	select {
	case a.d.backends.changes <- c:
	case <-ctx.Done():
		return nil, api.Errorf(api.Timeout, "%s: the daemon is busy", c)
	}
	out := <-c.done
	return out.answer, out.err
}

// parseBackend reads the address of a backend, which is never v4-mapped.
func parseBackend(text string) (netip.AddrPort, error) {
	addr, err := parseAddrPort(text)
	if err != nil {
		return addr, api.Errorf(api.BadRequest, "backend %q: want ADDRESS:PORT", text)
	}
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()), nil
}

// takesOrders is whether an order can be carried out at once. Until it is ready, what
// the process before left serves on: the order would be called done, and stored beside
// a configuration that has not been tried, while calls still go where they went.
func (d *daemon) takesOrders() bool { return d.ready || !d.inherited }

// meant are the backends that a wish is about.
func (d *daemon) meant(c *backendChange) ([]lb.Endpoint, error) {
	if d.running == nil {
		return nil, api.Errorf(api.Failed, "no configuration runs")
	}
	if c.unit != "" {
		return d.meantByUnit(c.unit)
	}
	vip := d.running.vip(c.vip)
	if vip == nil {
		return nil, noVIP(c.vip)
	}
	// A unit that is stopped is no backend, and what was said of it can be taken back.
	_, found := d.backends.operator[lb.Endpoint{VIP: c.vip, Addr: c.addr}]
	endpoints(vip, func(b config.Backend) { found = found || b.Addr == c.addr })
	if !found {
		return nil, &api.Error{
			Code: api.NotFound, Text: fmt.Sprintf("VIP %s has no backend %s", c.vip, c.addr), Hint: "slicelb backend list --vip " + c.vip,
		}
	}
	return []lb.Endpoint{{VIP: c.vip, Addr: c.addr}}, nil
}

// meantByUnit are the backends that a unit is; none, where it could be one and
// does not run.
func (d *daemon) meantByUnit(unit string) ([]lb.Endpoint, error) {
	if strings.Contains(unit, "*") {
		return nil, &api.Error{Code: api.BadRequest, Text: fmt.Sprintf("unit %q: want the name of one unit", unit), Hint: "slicelb backend list -o wide"}
	}
	if !slices.ContainsFunc(d.running.patterns, func(p string) bool { return unitwatch.MatchUnit(p, unit) }) {
		return nil, &api.Error{Code: api.NotFound, Text: fmt.Sprintf("no backend is the unit %q", unit), Hint: "slicelb backend list -o wide"}
	}
	return d.running.endpointsOf(unit), nil
}

// order carries a wish out: the kernel has it, no call is on its way that has not
// seen it, and the store has it, or the answer says why not.
func (d *daemon) order(ctx context.Context, c *backendChange) (*api.BackendChanged, error) {
	all, err := d.meant(c)
	if err != nil {
		return nil, err
	}
	b, before := d.backends, d.backends.operator
	next, out, checks := d.ordered(c, all)
	if next == nil {
		if d.applied || d.dp.dataPath == nil {
			return out, nil
		}
		next = before // said already, but the kernel may not have it
	}
	put := func(orders map[lb.Endpoint]order) {
		b.operator = orders
		b.count()
	}
	put(next)
	if c.state == api.OrderReady {
		// Whatever was found of them while they were out, or before. Until a check of
		// now has said otherwise they stay out.
		b.begin(b.idle(d.running, all, before))
		b.checker.Anew(checkedOf(all))
		d.rewatch()
	}
	if d.ready && d.snap != nil {
		writes, err := d.apply(ctx, d.running, d.snap)
		d.note(err)
		if err == nil {
			err = d.cramped.among(all)
		}
		if err != nil {
			put(before)
			if c.state == api.OrderReady {
				d.rewatch()
			}
			d.applied = false // back, at the next tick
			return nil, api.Errorf(api.Failed, "%s: %v", c, err)
		}
		out.Writes = writes
		d.drained(ctx) // what is written last comes after a grace period
	}
	if c.state == api.OrderReady {
		b.returned(all, before, time.Now())
	} else if checks {
		d.rewatch()
	}
	for _, e := range all {
		d.log.Info("backend "+c.state, "event", eventBackendOrdered, "vip", e.VIP, "backend", e.Addr, "unit", prose.Foreign(c.unit), "uid", c.uid)
	}
	out.Forgotten = d.keepOrders(ctx)
	return out, nil
}

// rewatch has checked what is to be, by the newest orders.
func (d *daemon) rewatch() {
	if p := d.pending; p != nil && p.source != nil {
		d.backends.watch(p.source, d.running)
	} else {
		d.backends.watch(d.running, nil)
	}
}

// idle are those of all that were out by before's orders and that no other VIP of src
// uses, whose checks may be the same.
func (b *backendStates) idle(src *source, all []lb.Endpoint, before map[lb.Endpoint]order) []lb.Endpoint {
	used := map[netip.AddrPort]bool{}
	for i := range src.cfg.VIPs {
		v := &src.cfg.VIPs[i]
		if src.checks[v.Name] == nil {
			continue
		}
		endpoints(v, func(be config.Backend) {
			if e := (lb.Endpoint{VIP: v.Name, Addr: be.Addr}); before[e].State == "" {
				used[e.Addr] = true
			}
		})
	}
	return slices.DeleteFunc(slices.Clone(all), func(e lb.Endpoint) bool {
		return src.checks[e.VIP] == nil || before[e].State == "" || used[e.Addr]
	})
}

// ordered is what operators will have said of backends when c holds for all of them,
// nil where that is so already; and whether other backends are checked then.
func (d *daemon) ordered(c *backendChange, all []lb.Endpoint) (next map[lb.Endpoint]order, out *api.BackendChanged, checks bool) {
	before := d.backends.operator
	next = maps.Clone(before) // the API reads the old one
	out = &api.BackendChanged{Before: api.OrderReady, Backends: []api.BackendBefore{}}
	changes := false
	for i, e := range all {
		was := before[e]
		state := cmp.Or(was.State, api.OrderReady)
		if i == 0 {
			out.Before = state
		}
		out.Backends = append(out.Backends, api.BackendBefore{VIP: e.VIP, Address: e.Addr.String(), Before: state})
		// What was said of the backend itself holds, whoever runs there: a word about
		// its unit ends with that one's run, and does not take its place.
		stands := c.unit != "" && was.State != "" && !was.ByUnit
		if stands && was.State == api.OrderMaint && c.state == api.OrderDrain {
			continue
		}
		byUnit := c.unit != "" && !stands && c.state != api.OrderReady
		if state == c.state && was.ByUnit == byUnit {
			continue
		}
		changes = true
		checks = checks || state != c.state && (c.state == api.OrderMaint || state == api.OrderMaint)
		if c.state == api.OrderReady {
			delete(next, e)
			continue
		}
		o := order{State: c.state, Since: time.Now(), UID: c.uid, ByUnit: byUnit}
		if state == c.state {
			o.Since = was.Since
		}
		if u := d.running.unit(e); u != nil {
			o.Unit, o.Run = u.Name, u.Run
		} else {
			o.Unit = was.Unit
		}
		next[e] = o
	}
	if !changes {
		next = nil
	}
	return next, out, checks
}

// keepOrders stores what operators said, for the next process. It returns why that
// would not know of it; "": it would.
func (d *daemon) keepOrders(ctx context.Context) string {
	if err := d.backends.seal(); err != nil {
		d.log.Error("store what was said of backends; trying again", "err", err)
		d.backends.unsaved = true
		return err.Error()
	}
	d.backends.saved = time.Now()
	d.keep(ctx, false)
	if d.kept.err != nil {
		return d.kept.err.Error()
	}
	return ""
}
