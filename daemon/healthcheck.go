package daemon

import (
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"net/netip"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/health"
)

// checksOf are the health checks of a configuration, by VIP. A check whose
// certificates cannot be read is there all the same and checks nothing: the
// error is for whoever can still refuse the configuration.
func checksOf(cfg *config.Config) (map[string]*health.Check, error) {
	out := map[string]*health.Check{}
	pools := map[string]*x509.CertPool{}
	var errs []error
	for i := range cfg.VIPs {
		h := cfg.VIPs[i].Health
		if h == nil {
			continue
		}
		c := &health.Check{
			Path: h.Path, Host: h.Host, Insecure: h.Insecure,
			Interval: h.Interval, Timeout: h.Timeout, Fall: int(h.Fall), Rise: int(h.Rise),
		}
		switch h.Type {
		case config.HealthHTTP:
			c.Type = health.HTTP
		case config.HealthHTTPS:
			c.Type = health.HTTPS
		}
		for _, f := range h.Headers {
			c.Headers = append(c.Headers, health.Header(f))
		}
		for _, e := range h.Expect {
			c.Expect = append(c.Expect, health.Range(e))
		}
		if h.CAFile != "" {
			pool, err := pools[h.CAFile], error(nil)
			if pool == nil {
				pool, err = health.ReadRoots(h.CAFile)
				pools[h.CAFile] = pool
			}
			if c.Roots = pool; err != nil {
				c.Broken = fmt.Errorf("ca_file: %w", err)
				errs = append(errs, fmt.Errorf("vip.%s.health: ca_file: %w", cfg.VIPs[i].Name, err))
			}
		}
		out[cfg.VIPs[i].Name] = c
	}
	return out, errors.Join(errs...)
}

// endpoints calls f for each backend of a VIP and of its views, once an address.
func endpoints(v *config.VIP, f func(config.Backend)) {
	seen := map[string]bool{}
	each := func(list []config.Backend) {
		for _, b := range list {
			if key := b.Addr.String(); !seen[key] {
				seen[key] = true
				f(b)
			}
		}
	}
	each(v.Backends)
	for i := range v.For {
		each(v.For[i].Backends)
	}
}

// lists are what the callers of a VIP are given, its own, where there may be callers that
// get it, and each view's, once for each family: of a list those count whose address it
// says yes to.
func lists(v *config.VIP) iter.Seq2[[]config.Backend, func(netip.Addr) bool] {
	return func(yield func([]config.Backend, func(netip.Addr) bool) bool) {
		for _, family := range []func(netip.Addr) bool{netip.Addr.Is4, netip.Addr.Is6} {
			if v.Own() && !yield(v.Backends, family) {
				return
			}
			for i := range v.For {
				if !yield(v.For[i].Backends, family) {
					return
				}
			}
		}
	}
}
