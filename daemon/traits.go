package daemon

import (
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
)

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
