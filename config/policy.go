package config

import (
	"net/netip"
	"strconv"
	"strings"
)

// Policy is [policy]: who may connect where.
type Policy struct {
	// Default is Allow or Deny: what no rule says of a connection to a VIP, or
	// to what a rule names. Groups may have their own.
	Default RuleAction
	Rules   []Rule // load order: the first that matches wins
	Origin  Position
}

// RuleAction says what becomes of a connection.
type RuleAction string

const (
	Allow RuleAction = "allow"
	Deny  RuleAction = "deny"  // EPERM
	Audit RuleAction = "audit" // allowed, and recorded
)

// Rule is one [[policy.rule]].
type Rule struct {
	From   []string // groups, "host" (who is in none), or "any"
	To     []Target
	Action RuleAction
	Origin Position
}

// AnyGroup stands, in a rule's From, for every group and the host.
const AnyGroup = "any"

// Target is one entry of a rule's To: a VIP, or a network.
type Target struct {
	VIP      string // "" for a network
	Backends bool   // of a VIP: its backends' own addresses too

	// Of a network: Prefix has no host bits and is never v4-mapped.
	Prefix    netip.Prefix
	Low, High uint16 // ports; 0 to 65535 where none is said
	Proto     Proto  // 0: TCP and UDP

	Origin Position
}

// Covers reports whether a network holds what a caller names. addr is unmapped.
func (t Target) Covers(addr netip.AddrPort, proto Proto) bool {
	return t.VIP == "" && t.Prefix.Contains(addr.Addr()) && t.Low <= addr.Port() && addr.Port() <= t.High &&
		(t.Proto == 0 || t.Proto == proto)
}

// String is the form of the configuration file.
func (t Target) String() string {
	if t.VIP != "" {
		if t.Backends {
			return t.VIP + backendsSuffix
		}
		return t.VIP
	}
	s := t.Prefix.String()
	if t.Prefix.IsSingleIP() {
		s = t.Prefix.Addr().String()
	}
	if t.Low != 0 || t.High != 65535 {
		if t.Prefix.Addr().Is6() {
			s = "[" + s + "]"
		}
		s += ":" + strconv.Itoa(int(t.Low))
		if t.High != t.Low {
			s += "-" + strconv.Itoa(int(t.High))
		}
	}
	if t.Proto != 0 {
		s += "/" + t.Proto.String()
	}
	return s
}

const (
	backendsSuffix = "+backends"
	letters        = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// parseTarget reads an entry of a rule's "to": "db", "db+backends",
// "10.0.0.0/8", "10.0.0.0/8:5432/tcp", "[fd00::/8]:8000-8999", "192.0.2.1:53/udp".
func parseTarget(text string) (Target, *refusal) {
	if !strings.ContainsAny(text, ".:/[") {
		t := Target{}
		t.VIP, t.Backends = strings.CutSuffix(text, backendsSuffix)
		if t.VIP == "" {
			return t, &refusal{"target " + quote(text) + " names nothing", "write a VIP's name, or a network as 10.0.0.0/8"}
		}
		if name, plus, said := strings.Cut(t.VIP, "+"); said {
			return t, &refusal{"target " + quote(text) + ": " + quote("+"+plus) + " is not known", "write " + quote(name+backendsSuffix)}
		}
		return t, nil
	}
	return parseNetwork(text)
}

func parseNetwork(text string) (Target, *refusal) {
	t := Target{Low: 0, High: 65535}
	refuse := func(message, hint string) (Target, *refusal) {
		return t, &refusal{"network " + quote(text) + ": " + message, hint}
	}
	rest := text
	if i := strings.LastIndexByte(rest, '/'); i >= 0 && strings.Trim(rest[i+1:], letters) == "" {
		proto, refused := parseProto(rest[i+1:])
		if refused != nil {
			return refuse(refused.message, refused.hint)
		}
		t.Proto, rest = proto, rest[:i]
	}

	host, ports, bracketed := rest, "", strings.HasPrefix(rest, "[")
	said := false
	switch {
	case bracketed:
		i := strings.IndexByte(rest, ']')
		if i < 0 {
			return refuse(`a "[" without "]"`, "")
		}
		host, ports = rest[1:i], rest[i+1:]
		if strings.HasPrefix(ports, "/") {
			return refuse("the prefix length stands in the brackets", `write "[fd00::/8]:5432"`)
		}
		if ports != "" && ports[0] != ':' {
			return refuse(`after "]" comes ":" and the ports`, "")
		}
		ports, said = strings.CutPrefix(ports, ":")
	case strings.Count(rest, ":") == 1:
		host, ports, said = strings.Cut(rest, ":")
	}

	prefix, refused := parsePrefix(host)
	if refused != nil {
		return refuse(refused.message, refused.hint)
	}
	if bracketed && prefix.Addr().Is4() {
		return refuse("an IPv4 network stands without brackets", "")
	}
	t.Prefix = prefix
	if said {
		var message string
		if t.Low, t.High, message = parsePorts(ports); message != "" {
			return refuse(message, `one, as ":5432", or some, as ":8000-8999"`)
		}
	}
	return t, nil
}

// parsePrefix reads an address, or one with a prefix length.
func parsePrefix(host string) (netip.Prefix, *refusal) {
	var none netip.Prefix
	addr, err := netip.ParseAddr(host)
	prefix := netip.PrefixFrom(addr, addr.BitLen())
	if err != nil {
		prefix, err = netip.ParsePrefix(host)
	}
	switch {
	case host == "":
		return none, &refusal{"no address", ""}
	case err != nil && !strings.ContainsAny(host, ".:"):
		return none, &refusal{"not an IP network", "a VIP is named as it is called, a network as 10.0.0.0/8"}
	case err != nil:
		hint := ""
		before, length, said := strings.Cut(host, "/")
		if plain, ok := withoutZeros(before); ok {
			hint = "write " + strings.TrimSuffix(plain+"/"+length, "/") + ": numbers do not begin with a zero"
		}
		if addr, err := netip.ParseAddr(before); err == nil && addr.Is6() && said && strings.Contains(length, ":") {
			length, ports, _ := strings.Cut(length, ":")
			hint = "an IPv6 network with ports is written [" + before + "/" + length + "]:" + ports
		}
		if strings.Trim(host, "0123456789.:abcdefABCDEF/") != "" {
			hint = "names are not resolved: write addresses"
		}
		return none, &refusal{"not an IP network", hint}
	case addr.Zone() != "":
		return none, &refusal{"an address with a zone is not supported", ""}
	case prefix.Addr().Is4In6():
		return none, &refusal{"a v4-mapped address", "write the IPv4 network"}
	case prefix != prefix.Masked():
		return none, &refusal{"bits are set beyond the prefix length", "write " + prefix.Masked().String()}
	}
	return prefix, nil
}

func parsePorts(text string) (low, high uint16, message string) {
	a, b, ranged := strings.Cut(text, "-")
	if !ranged {
		b = a
	}
	var n [2]uint16
	for i, s := range []string{a, b} {
		if s == "" || strings.Trim(s, "0123456789") != "" {
			return 0, 0, "ports " + quote(text) + " are no numbers"
		}
		port, err := strconv.ParseUint(s, 10, 16)
		if err != nil || port == 0 {
			return 0, 0, "port " + printable(s) + " is not from 1 to 65535"
		}
		if s[0] == '0' {
			return 0, 0, "port " + s + " begins with a zero"
		}
		n[i] = uint16(port)
	}
	if n[0] > n[1] {
		return 0, 0, "the range of ports " + quote(text) + " is empty"
	}
	return n[0], n[1], ""
}
