package config

import (
	"net/netip"
	"slices"
)

// backendsDraft is one list of backends, a VIP's own or a view's, with the places
// that checks point at.
type backendsDraft struct {
	fixed    []Backend // that stand in the files
	at       []span
	units    []UnitBackend
	unitsAt  []span
	complete bool // all could be read
}

// readBackends reads t's backends.
func (b *builder) readBackends(t *table, title string) backendsDraft {
	list, _ := t.tables("backend", "["+title+"]")
	if len(list) > MaxPerVIP {
		b.errorf(list[MaxPerVIP].own(), "", "%s has more than %d backends", t.title, MaxPerVIP)
		list = list[:MaxPerVIP]
	}
	d := backendsDraft{complete: true}
	for _, bt := range list {
		bt.title = "[[" + title + "]]"
		weight := bt.number("weight", DefaultWeight, 0, maxWeight)
		read := b.readFixed
		if _, byUnit := bt.m["unit"]; byUnit {
			read = b.readUnit
		}
		if !read(bt, weight, &d) {
			d.complete = false
		}
		bt.rest(backendKeys, nil)
	}
	// A clone has no spare room: there may be 100,000 of them.
	d.fixed = slices.Clone(d.fixed)
	return d
}

// readFixed adds a backend that has an address of its own; false: it has none that
// can be read.
func (b *builder) readFixed(t *table, weight uint32, d *backendsDraft) bool {
	text, at, said := t.text("address")
	if !said {
		if at.src == nil { // not of the wrong type: absent
			b.errorf(t.own(), `address = "192.0.2.11:5432"`, "%s has no address", t.title)
		}
		return false
	}
	addr, refused := parseBackend(text)
	if refused != nil {
		b.errorf(at, refused.hint, "%s", refused.message)
		return false
	}
	d.fixed = append(d.fixed, Backend{Addr: addr, Weight: weight, Origin: at.position()})
	d.at = append(d.at, at)
	return true
}

// families says which of IPv4 and IPv6 are there.
type families struct{ v4, v6 bool }

func (f *families) add(is4 bool) {
	f.v4, f.v6 = f.v4 || is4, f.v6 || !is4
}

func (f families) has(is4 bool) bool { return is4 && f.v4 || !is4 && f.v6 }

func familyName(is4 bool) string {
	if is4 {
		return "IPv4"
	}
	return "IPv6"
}

// checkBackends checks the backends of a VIP or of one of its views.
func (b *builder) checkBackends(v *vipDraft, title string, d *backendsDraft) {
	title = printable(title)
	first := make(map[netip.AddrPort]span, len(d.fixed))
	var has, wants families
	for i, be := range d.fixed {
		if o, twice := first[be.Addr]; twice {
			b.errorf(d.at[i], "", "backend %s stands twice in %s, first at %s", be.Addr, title, o.position())
		} else {
			first[be.Addr] = d.at[i]
		}
		has.add(be.Addr.Addr().Is4())
	}
	for _, u := range d.units {
		has.add(u.Family == 4)
	}
	b.checkUnits(title, d, first)

	for i, f := range v.Frontends {
		is4 := f.Addr.Addr().Is4()
		wants.add(is4)
		if d.complete && has != (families{}) && !has.has(is4) {
			b.errorf(v.frontends[i], "", "frontend %s has no %s backend: %s has %s ones only", f, familyName(is4), title, familyName(!is4))
		}
	}
	if !v.frontendsOK || wants == (families{}) {
		return
	}
	unserved := func(at span, is4 bool, backend string) {
		if !wants.has(is4) {
			b.warnf(at, "", "backend %s serves nobody: vip.%s has no %s frontend", backend, printable(v.Name), familyName(is4))
		}
	}
	for i, be := range d.fixed {
		unserved(d.at[i], be.Addr.Addr().Is4(), be.Addr.String())
	}
	for i, u := range d.units {
		unserved(d.unitsAt[i], u.Family == 4, quote(u.Address))
	}
}
