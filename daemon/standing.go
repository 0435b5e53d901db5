package daemon

import (
	"net/netip"
	"time"

	"github.com/slicelb/slicelb/config"
)

// standing is since when the backends that the files name, and whom no check and no unit
// speaks for, stand as they do: there, with a weight or without. It is a source's own,
// immutable, and by VIP, for most of a VIP's backends have come with it.
type standing map[string]*stood

// stood is since when those of a VIP do, but for what is in other. The zero time is
// not known.
type stood struct {
	since time.Time
	other map[listed]time.Time
}

// listed is a backend in a list of a VIP.
type listed struct {
	group string // whose list it is; "" = the VIP's own
	addr  netip.AddrPort
}

func (s *stood) at(l listed) time.Time {
	if s == nil {
		return time.Time{}
	}
	if since, ok := s.other[l]; ok {
		return since
	}
	return s.since
}

// standingAfter is the standing of what cfg names, which takes the place of before now.
func standingAfter(cfg *config.Config, before *source, now time.Time) standing {
	out := make(standing, len(cfg.VIPs))
	for i := range cfg.VIPs {
		v := &cfg.VIPs[i]
		old := before.vip(v.Name)
		if old == nil || (old.Health == nil) != (v.Health == nil) {
			out[v.Name] = &stood{since: now}
			continue
		}
		out[v.Name] = before.stands[v.Name].after(old, v, now)
	}
	return out
}

// after is s, which is old's, for next.
func (s *stood) after(old, next *config.VIP, now time.Time) *stood {
	had := map[listed]bool{} // with a weight
	eachListed(old, func(l listed, b config.Backend) { had[l] = b.Weight > 0 })
	out := &stood{other: map[listed]time.Time{}}
	if s != nil {
		out.since = s.since
	}
	eachListed(next, func(l listed, b config.Backend) {
		since := now
		if weighed, ok := had[l]; ok && weighed == (b.Weight > 0) {
			since = s.at(l)
		}
		if !since.Equal(out.since) {
			out.other[l] = since
		}
	})
	return out
}

// eachListed calls f for the backends that the files name, list by list.
func eachListed(v *config.VIP, f func(listed, config.Backend)) {
	each := func(group string, list []config.Backend) {
		for _, b := range list {
			if b.Unit == "" {
				f(listed{group, b.Addr}, b)
			}
		}
	}
	each("", v.Backends)
	for i := range v.For {
		each(v.For[i].Group, v.For[i].Backends)
	}
}

// storedStanding is a VIP's for the next process.
type storedStanding struct {
	VIP   string        `json:"vip"`
	Since moment        `json:"since,omitempty"`
	Other []storedSince `json:"other,omitempty"`
}

type storedSince struct {
	Group   string         `json:"group,omitempty"`
	Address netip.AddrPort `json:"address"`
	Since   moment         `json:"since,omitempty"`
}

func (s standing) stored() []storedStanding {
	out := make([]storedStanding, 0, len(s))
	for vip, st := range s {
		one := storedStanding{VIP: vip, Since: momentOf(st.since)}
		for l, since := range st.other {
			one.Other = append(one.Other, storedSince{l.group, l.addr, momentOf(since)})
		}
		out = append(out, one)
	}
	return out
}

func standingOf(list []storedStanding) standing {
	out := make(standing, len(list))
	for _, one := range list {
		st := &stood{since: one.Since.time(), other: make(map[listed]time.Time, len(one.Other))}
		for _, o := range one.Other {
			st.other[listed{o.Group, o.Address}] = o.Since.time()
		}
		out[one.VIP] = st
	}
	return out
}
