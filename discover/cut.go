package discover

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/slicelb/slicelb/config"
)

// Most is how many backends that are units, and of those that count, a VIP has at
// most; nil: all count.
func (e *Endpoints) Most(counts func(Endpoint, Unit) bool) int {
	most := 0
	each := map[string]int{}
	for at, u := range e.Units {
		if counts == nil || counts(at, u) {
			each[at.VIP]++
			most = max(most, each[at.VIP])
		}
	}
	return most
}

// Cut is e with at most so many backends that are units in each VIP, and those that
// are left out, by VIP and address. What runs comes before what is down, then what had
// a place before what had none, then what has stood as it does for longest.
func (e *Endpoints) Cut(most int, had func(Endpoint) bool) (*Endpoints, []Endpoint) {
	type place struct {
		at    Endpoint
		runs  bool
		had   bool
		since time.Time
	}
	byVIP := map[string][]place{}
	for at, u := range e.Units {
		byVIP[at.VIP] = append(byVIP[at.VIP], place{at: at, runs: u.State.Runs(), since: u.Since})
	}
	var out []Endpoint
	left := map[Endpoint]bool{}
	for _, list := range byVIP {
		if len(list) <= most {
			continue
		}
		for i := range list {
			list[i].had = had(list[i].at)
		}
		slices.SortFunc(list, func(a, b place) int {
			return cmp.Or(after(!a.runs, !b.runs), after(!a.had, !b.had), a.since.Compare(b.since), a.at.Compare(b.at))
		})
		for _, p := range list[most:] {
			left[p.at] = true
			out = append(out, p.at)
		}
	}
	slices.SortFunc(out, Endpoint.Compare)
	return e.without(left), out
}

// without is e where none of left is a backend by its unit.
func (e *Endpoints) without(left map[Endpoint]bool) *Endpoints {
	if len(left) == 0 {
		return e
	}
	list := func(vip string, backends []config.Backend) []config.Backend {
		return slices.DeleteFunc(slices.Clone(backends), func(b config.Backend) bool {
			return b.Unit != "" && left[Endpoint{vip, b.Addr}]
		})
	}
	short := map[string]bool{} // VIPs
	for at := range left {
		short[at.VIP] = true
	}
	cfg, out := *e.Config, *e
	cfg.VIPs = slices.Clone(cfg.VIPs)
	for i := range cfg.VIPs {
		v := &cfg.VIPs[i]
		if !short[v.Name] {
			continue
		}
		v.Backends, v.For = list(v.Name, v.Backends), slices.Clone(v.For)
		for j := range v.For {
			v.For[j].Backends = list(v.Name, v.For[j].Backends)
		}
	}
	out.Config = &cfg
	return &out
}

// Compare orders by VIP, then by address.
func (e Endpoint) Compare(o Endpoint) int {
	return cmp.Or(strings.Compare(e.VIP, o.VIP), e.Addr.Compare(o.Addr))
}

// after orders what is so behind what is not.
func after(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
