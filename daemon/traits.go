package daemon

import (
	"context"
	"slices"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/health"
)

// optionalHooks are those that a configuration has a use for. They cost something
// for every TCP socket of the host.
func optionalHooks(cfg *config.Config) []string {
	out := []string{}
	if slices.ContainsFunc(cfg.VIPs, func(v config.VIP) bool { return v.Health != nil && v.Health.Passive }) {
		out = append(out, bpf.SockOps)
	}
	if slices.ContainsFunc(cfg.Groups, func(g config.Group) bool { return g.Strict }) {
		out = append(out, bpf.SockCreate)
	}
	return out
}

// traitsOf says what is done with the sockets of each VIP's backends.
func traitsOf(cfg *config.Config) map[string]bpf.Traits {
	out := make(map[string]bpf.Traits, len(cfg.VIPs))
	for i := range cfg.VIPs {
		v := &cfg.VIPs[i]
		out[v.Name] = bpf.Traits{
			Passive:      v.Health != nil && v.Health.Passive,
			TerminateUDP: v.Terminate != config.TerminateNone,
			TerminateTCP: v.Terminate == config.TerminateAll,
		}
	}
	return out
}

// setTraits tells the data plane, once for each source.
func (d *daemon) setTraits(src *source) error {
	if d.traited == src {
		return nil
	}
	if err := d.dp.SetTraits(traitsOf(src.cfg)); err != nil {
		return err
	}
	d.traited = src
	return nil
}

// rehook attaches and detaches optional hooks, where cfg has a use for others than
// those that are attached.
func (d *daemon) rehook(cfg *config.Config) error {
	want := d.wantedHooks(cfg)
	if d.hooked != nil && slices.Equal(want, d.hooked) {
		return nil
	}
	d.dp.Want(want...)
	if err := d.dp.Attach(d.rootDir); err != nil {
		return err
	}
	d.hooked, d.unkept = want, true
	return nil
}

// suspects passes on what the kernel saw fail, until the data plane is closed.
// It is a reason to check, no verdict: any process of the host can cause it.
func (d *daemon) suspects(ctx context.Context, f failures) {
	for {
		failed, err := f.Read()
		if err != nil {
			if ctx.Err() == nil {
				d.log.Error("failed connects are not read any more", "err", err)
			}
			return
		}
		d.log.Debug("a connect failed", "vip", failed.VIP, "backend", failed.Backend, "err", failed.Err)
		d.backends.checker.Suspect(health.Endpoint{VIP: failed.VIP, Addr: failed.Backend})
	}
}
