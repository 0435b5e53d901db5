package config

import (
	"errors"
	"net/netip"
	"strings"
)

// UnitBackend is one [[vip.NAME.backend]] with a unit: it stands for a backend
// for each unit that runs.
type UnitBackend struct {
	Unit    string // a unit's name; "*" stands for anything
	Address string // as written: %i is the unit's instance
	Weight  uint32
	Origin  Position

	Family uint8 // of Address, 4 or 6: no instance makes it the other
}

// instance is what systemd calls %i.
const instance = "%i"

// Addr is the address of the unit's backend. It fails where the unit's instance
// makes no valid one.
func (u *UnitBackend) Addr(unit string) (netip.AddrPort, error) {
	addr, err := parseBackend(strings.ReplaceAll(u.Address, instance, instanceOf(unit)))
	if err != nil {
		return netip.AddrPort{}, errors.New(err.message)
	}
	return addr, nil
}

// instanceOf is what stands between "@" and the type, "" where there is no "@".
func instanceOf(unit string) string {
	_, rest, ok := strings.Cut(unit, "@")
	if i := strings.LastIndexByte(rest, '.'); ok && i >= 0 {
		return rest[:i]
	}
	return ""
}

// unitTypes are those that can be backends: processes run in them, or one
// listens for them.
var unitTypes = []string{".service", ".socket", ".scope"}

// readUnit adds a backend that names a unit; false: something in it is wrong.
func (b *builder) readUnit(t *table, weight uint32, d *backendsDraft) bool {
	unit, at, ok := t.text("unit")
	address, addressAt, said := t.text("address")
	u := UnitBackend{Unit: unit, Address: address, Weight: weight, Origin: at.position()}
	if ok {
		if err := checkUnit(unit); err != nil {
			b.errorf(at, err.hint, "%s%s", err.message, t.in())
			ok = false
		}
	}
	switch {
	case said:
		if err := u.check(ok); err != nil {
			b.errorf(addressAt, err.hint, "%s%s", err.message, t.in())
			ok = false
		}
	case addressAt.src == nil: // not of the wrong type: absent
		hint := `address = "127.0.0.1:8080"`
		if strings.Contains(unit, "*") {
			hint = `address = "127.0.0.1:%i"`
		}
		b.errorf(t.own(), hint, "%s has no address", t.title)
		fallthrough
	default:
		ok = false
	}
	if ok {
		d.units, d.unitsAt = append(d.units, u), append(d.unitsAt, at)
	}
	return ok
}

func checkUnit(unit string) *refusal {
	refuse := func(why, hint string) *refusal { return &refusal{"unit " + quote(unit) + ": " + why, hint} }
	stem, known := unit, false
	for _, t := range unitTypes {
		if s, ok := strings.CutSuffix(unit, t); ok {
			stem, known = s, true
		}
	}
	for i := range len(unit) {
		switch c := unit[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', strings.IndexByte(`:-_.\@*`, c) >= 0:
		case c == '?' || c == '[':
			return refuse(`"*" is the only wildcard`, "")
		case c == '%':
			return refuse("a name, not a specifier", `"*" stands for every instance`)
		default:
			return refuse("cannot be a unit's name", "")
		}
	}
	switch {
	case !known:
		hint := ""
		if unit != "" && !strings.Contains(unit, ".") {
			hint = "write " + quote(unit+".service")
		}
		return refuse("is no service, socket or scope", hint)
	case stem == "" || stem[0] == '@' || len(unit) > 255:
		return refuse("cannot be a unit's name", "")
	case strings.HasSuffix(stem, "@"):
		return refuse("a template, which never runs itself", "write "+quote(stem+"*"+unit[len(stem):])+" for every instance")
	}
	return nil
}

// check refuses an address that no instance makes valid, or that is the same for
// many units. Of a unit that is refused, nobody knows which instances it means.
func (u *UnitBackend) check(known bool) *refusal {
	uses := strings.Contains(u.Address, instance)
	has, many := strings.Contains(u.Unit, "@"), strings.Contains(u.Unit, "*")
	if !known {
		has, many = has || u.Unit == "", many || uses
	}
	refuse := func(why, hint string) *refusal { return &refusal{"address " + quote(u.Address) + ": " + why, hint} }
	if rest := strings.ReplaceAll(u.Address, instance, ""); strings.Contains(rest, "%") {
		return refuse("%i, the instance, is the only specifier", "")
	}
	switch {
	case uses && !has:
		hint := ""
		if stem, ok := strings.CutSuffix(u.Unit, ".service"); ok {
			hint = `unit = "` + strings.TrimRight(stem, "*") + `@*.service"`
		}
		return refuse("%i has no meaning, "+quote(u.Unit)+" has no instance", hint)
	case uses && !many:
		addr, err := parseBackend(strings.ReplaceAll(u.Address, instance, instanceOf(u.Unit)))
		if err != nil {
			return err
		}
		u.Family = familyOf(addr)
		return nil
	case !uses && many:
		return refuse("the same for each of "+quote(u.Unit), "%i stands for the instance: 127.0.0.1:%i")
	case !uses:
		addr, err := parseBackend(u.Address)
		if err != nil {
			return err
		}
		u.Family = familyOf(addr)
		return nil
	}
	var first *refusal
	for _, sample := range []string{"8080", "1", "a", "10.0.0.1", "fd00::1", "10.0.0.1:8080"} {
		addr, err := parseBackend(strings.ReplaceAll(u.Address, instance, sample))
		if err == nil {
			u.Family = familyOf(addr) // brackets, which no unit's name can have, or none
			return nil
		}
		if first == nil {
			first = refuse("no instance makes it ADDRESS:PORT; with "+quote(sample)+", "+err.message, err.hint)
		}
	}
	return first
}

func familyOf(a netip.AddrPort) uint8 {
	if a.Addr().Is4() {
		return 4
	}
	return 6
}

// checkUnits refuses units that stand twice in a list of backends; fixed is where
// each backend with an address of its own stands.
func (b *builder) checkUnits(title string, d *backendsDraft, fixed map[netip.AddrPort]span) {
	type key struct{ unit, address string }
	first := map[key]span{}
	for i, u := range d.units {
		k, at := key{u.Unit, u.Address}, d.unitsAt[i]
		if o, twice := first[k]; twice {
			b.errorf(at, "", "unit %s with address %s stands twice in %s, first at %s", quote(u.Unit), quote(u.Address), title, o.position())
			continue
		}
		first[k] = at
		if addr, err := parseBackend(u.Address); err == nil {
			if o, there := fixed[addr]; there {
				b.errorf(at, "", "backend %s of unit %s stands in %s in any case: %s", addr, quote(u.Unit), title, o.position())
			}
		}
	}
}

// UnitPatterns are the units that the VIPs' backends name, each once, in the
// order of the VIPs.
func (c *Config) UnitPatterns() []string {
	var out []string
	seen := map[string]bool{}
	add := func(list []UnitBackend) {
		for _, u := range list {
			if !seen[u.Unit] {
				seen[u.Unit] = true
				out = append(out, u.Unit)
			}
		}
	}
	for i := range c.VIPs {
		add(c.VIPs[i].Units)
		for _, view := range c.VIPs[i].For {
			add(view.Units)
		}
	}
	return out
}
