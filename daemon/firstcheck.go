package daemon

import (
	"net/netip"
	"time"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
)

// A start and a reload wait for the first checks of backends: what starts after the
// daemon finds backends then, and one set of them takes the place of another without a
// gap. A backend may say nothing for as long as its check's timeout, and whatever waits
// for it is not done meanwhile, for other VIPs either: so neither waits for longer than
// this.
const (
	startChecks  = 5 * time.Second
	reloadChecks = 10 * time.Second

	// checkSlack is how much longer than its timeout a first check is waited for.
	checkSlack = time.Second
)

// firstChecks is how long the first check of every backend may take, and most at the
// most.
func (s *source) firstChecks(most time.Duration) time.Duration {
	var longest time.Duration
	for _, c := range s.checks {
		longest = max(longest, c.Timeout)
	}
	return min(longest+checkSlack, most)
}

// waiting reports whether there are backends whose first check has not ended.
func (b *backendStates) waiting() bool {
	return b.verdicts == nil || b.verdicts.Set < b.set || b.verdicts.Unchecked > 0
}

// unchecked reports whether the first state is to wait for first checks. Where a data
// plane serves already, it waits for no more than one backend of each list.
func (d *daemon) unchecked() bool {
	return !d.ready && d.running != nil && len(d.running.checks) > 0 && d.backends.waiting() &&
		time.Since(d.listening) < d.running.firstChecks(startChecks) && (!d.inherited || d.backends.bare(d.running))
}

// bare reports whether the callers of a VIP would find no backend in a family only
// because the first checks have not ended.
func (b *backendStates) bare(src *source) bool {
	if b.verdicts == nil || b.verdicts.Set < b.set {
		return true
	}
	states := b.states()
	bare := func(vip string, list []config.Backend, family func(netip.Addr) bool) bool {
		unknown := false
		for _, be := range list {
			state, checked := states[lb.Endpoint{VIP: vip, Addr: be.Addr}]
			if !checked || !family(be.Addr.Addr()) {
				continue
			}
			if state == health.Up {
				return false
			}
			unknown = unknown || state == health.Unchecked
		}
		return unknown
	}
	for i := range src.cfg.VIPs {
		v := &src.cfg.VIPs[i]
		for list, family := range lists(v) {
			if bare(v.Name, list, family) {
				return true
			}
		}
	}
	return false
}
