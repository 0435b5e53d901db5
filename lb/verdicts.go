package lb

import (
	"fmt"
	"slices"

	"github.com/slicelb/slicelb/config"
)

// WithVerdicts is what Compile gives for the same configuration, tree and
// membership with other verdicts. It costs what is judged otherwise, and a look at
// each verdict and each VIP: VIPs that are judged as before are the same ones.
func (s *State) WithVerdicts(verdicts map[Endpoint]Verdict) (*State, error) {
	judged := map[string]bool{}
	for e, v := range verdicts {
		if s.verdicts[e] != v {
			judged[e.VIP] = true
		}
	}
	for e := range s.verdicts {
		if _, ok := verdicts[e]; !ok {
			judged[e.VIP] = true
		}
	}
	return s.again(s.cfg, verdicts, judged)
}

// WithBackends is what Compile gives for cfg, which has other backends in the VIPs of
// those names, and differs in nothing else. It costs those VIPs, and the policy where it
// names backends.
func (s *State) WithBackends(cfg *config.Config, vips map[string]bool) (*State, error) {
	out, err := s.again(cfg, s.verdicts, vips)
	if err != nil || !namesBackends(cfg) {
		return out, err
	}
	if out.Policy, err = compilePolicy(cfg); err != nil {
		return nil, err
	}
	out.count()
	return out, nil
}

// again compiles the VIPs of those names again.
func (s *State) again(cfg *config.Config, verdicts map[Endpoint]Verdict, vips map[string]bool) (*State, error) {
	out := *s
	out.cfg, out.verdicts = cfg, verdicts
	if len(vips) == 0 {
		return &out, nil
	}
	known := s.known()
	out.VIPs = slices.Clone(s.VIPs)
	configured := out.configured(vips)
	for i, v := range out.VIPs {
		if !vips[v.Name] {
			continue
		}
		c := vipCompiler{v: configured[v.Name], family: v.Family, rt: Runtime{Verdicts: verdicts}}
		vip, err := c.compile(known)
		if err != nil {
			return nil, fmt.Errorf("vip %s: %w", v.Name, err)
		}
		out.VIPs[i] = vip
	}
	out.count()
	return &out, nil
}

// configured are the VIPs of those names, as they are written.
func (s *State) configured(names map[string]bool) map[string]*config.VIP {
	out := make(map[string]*config.VIP, len(names))
	for i := range s.cfg.VIPs {
		if v := &s.cfg.VIPs[i]; names[v.Name] {
			out[v.Name] = v
		}
	}
	return out
}

// known are the groups that a VIP may name.
func (s *State) known() map[string]bool {
	known := map[string]bool{HostGroup: true}
	for _, g := range s.Groups {
		known[g.Name] = true
	}
	return known
}
