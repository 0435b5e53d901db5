package config

import "net/netip"

// readFrontends reads a VIP's frontends; a VIP that another file has already may
// have none here.
func (b *builder) readFrontends(t *table, v *vipDraft) {
	words, _, complete := t.words("frontends")
	v.frontendsOK = complete
	if len(words) == 0 && complete && b.vipByID[v.Name] == nil {
		b.errorf(v.at, `frontends = ["10.96.0.10:5432"]`, "%s has no frontends", t.title)
	}
	if len(words) > MaxPerVIP {
		b.errorf(words[MaxPerVIP].at, "", "%s has more than %d frontends", t.title, MaxPerVIP)
		words = words[:MaxPerVIP]
	}
	for _, w := range words {
		f, refused := parseFrontend(w.text)
		if refused != nil {
			b.errorf(w.at, refused.hint, "%s", refused.message)
			v.frontendsOK = false
			continue
		}
		f.Origin = w.at.position()
		v.Frontends = append(v.Frontends, f)
		v.frontends = append(v.frontends, w.at)
	}
}

// checkFrontends: an address, port and protocol belongs to one VIP.
func (b *builder) checkFrontends() {
	type key struct {
		addr  netip.AddrPort
		proto Proto
	}
	type owner struct {
		vip string
		at  span
	}
	first := make(map[key]owner)
	for _, v := range b.vips {
		for i, f := range v.Frontends {
			at := v.frontends[i]
			k := key{f.Addr, f.Proto}
			o, taken := first[k]
			switch {
			case !taken:
				first[k] = owner{v.Name, at}
			case o.vip == v.Name:
				b.errorf(at, "", "frontend %s stands twice in vip.%s, first at %s", f, printable(v.Name), o.at.position())
			default:
				b.errorf(at, "", "frontend %s belongs to vip.%s already: %s", f, printable(o.vip), o.at.position())
			}
		}
	}
}

// checkUnknownPorts: one VIP says for an address what becomes of its other ports.
func (b *builder) checkUnknownPorts() {
	first := map[netip.Addr]*vipDraft{}
	for _, v := range b.vips {
		if !v.RejectUnknownPorts {
			continue
		}
		for _, f := range v.Frontends {
			addr := f.Addr.Addr()
			if o := first[addr]; o != nil && o != v {
				b.errorf(v.unknownPortsAt, "leave it out here: it holds for the address",
					"vip.%s has the address %s in common with vip.%s, which has reject_unknown_ports already: %s",
					printable(v.Name), addr, printable(o.Name), o.unknownPortsAt.position())
				break
			}
			first[addr] = v
		}
	}
}
