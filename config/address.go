package config

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
)

// refusal says what is wrong with one value, and what to write instead.
type refusal struct{ message, hint string }

// parseFrontend reads "address:port", with "/udp" or "/tcp" after it.
func parseFrontend(text string) (Frontend, *refusal) {
	rest, proto, said := strings.Cut(text, "/")
	f := Frontend{Proto: TCP}
	if said {
		var refused *refusal
		if f.Proto, refused = parseProto(proto); refused != nil {
			return f, &refusal{"frontend " + quote(text) + ": " + refused.message, refused.hint}
		}
	}
	addr, err := parseAddrPort("frontend", text, rest)
	f.Addr = addr
	return f, err
}

// parseProto reads what stands behind an address's slash.
func parseProto(text string) (Proto, *refusal) {
	switch text {
	case "tcp":
		return TCP, nil
	case "udp":
		return UDP, nil
	}
	return 0, &refusal{"unknown protocol " + quote(text), cmp.Or(suggest(text, []string{"tcp", "udp"}), "tcp or udp")}
}

// parseBackend reads "address:port".
func parseBackend(text string) (netip.AddrPort, *refusal) {
	if rest, proto, said := strings.Cut(text, "/"); said && (proto == "tcp" || proto == "udp") {
		return netip.AddrPort{}, &refusal{"backend " + quote(text) + ": a backend serves the protocols of the VIP's frontends", "write " + quote(rest)}
	}
	return parseAddrPort("backend", text, text)
}

// parseAddrPort reads rest, which is text or its beginning.
func parseAddrPort(kind, text, rest string) (netip.AddrPort, *refusal) {
	var none netip.AddrPort
	refuse := func(message, hint string) (netip.AddrPort, *refusal) {
		return none, &refusal{kind + " " + quote(text) + ": " + message, hint}
	}

	host, port, refused := splitAddrPort(rest)
	if refused != nil {
		return refuse(refused.message, refused.hint)
	}
	bracketed := strings.HasPrefix(rest, "[")
	addr, err := netip.ParseAddr(host)
	switch {
	case host == "":
		return refuse("no address", "")
	case err != nil:
		hint := ""
		if strings.Trim(host, "0123456789.:abcdefABCDEF") != "" {
			hint = "names are not resolved: write the address"
		} else if plain, ok := withoutZeros(host); ok {
			hint = "write " + strings.TrimSuffix(plain+":"+port, ":") + ": numbers do not begin with a zero"
		}
		return refuse("not an IP address", hint)
	case addr.Zone() != "":
		return refuse("an address with a zone is not supported", "")
	case addr.Is6() && !bracketed:
		return refuse("an IPv6 address stands in brackets", "write ["+host+"]:"+port)
	case addr.Is4() && bracketed:
		return refuse("an IPv4 address stands without brackets", "write "+host+":"+port)
	case addr.Is4In6():
		return refuse("a v4-mapped address", "write "+addr.Unmap().String()+":"+port)
	}
	n, message := parsePort(port)
	if message != "" {
		return refuse(message, "")
	}
	switch {
	case port[0] == '0':
		return refuse("the port begins with a zero", "write "+strings.TrimSuffix(rest, port)+strconv.Itoa(int(n)))
	case addr.IsUnspecified():
		return refuse("the unspecified address names no host", "")
	case addr.IsMulticast():
		return refuse("a multicast address", "")
	case addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return refuse("the broadcast address", "")
	case kind == "backend" && addr.Is6() && addr.IsLinkLocalUnicast():
		return refuse("a link-local address means nothing without an interface", "")
	}
	return netip.AddrPortFrom(addr, n), nil
}

// splitAddrPort takes the port from what stands in front of it, and brackets away.
func splitAddrPort(text string) (host, port string, refused *refusal) {
	if strings.HasPrefix(text, "[") {
		i := strings.IndexByte(text, ']')
		if i < 0 {
			return "", "", &refusal{`a "[" without "]"`, ""}
		}
		host, port = text[1:i], text[i+1:]
		if port != "" && port[0] != ':' {
			return "", "", &refusal{`after "]" comes ":" and the port`, ""}
		}
		return host, strings.TrimPrefix(port, ":"), nil
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Is6() {
		return "", "", &refusal{"no port", "an IPv6 address with a port is written [" + text + "]:5432"}
	}
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		return text[:i], text[i+1:], nil
	}
	return text, "", nil
}

// parsePort reads a port, or says what is wrong with it.
func parsePort(text string) (port uint16, message string) {
	if text == "" {
		return 0, "no port"
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil && strings.Trim(text, "0123456789") != "" {
		return 0, "the port is not a number"
	}
	if err != nil || n < 1 || n > 65535 {
		return 0, "port " + printable(text) + " is not from 1 to 65535"
	}
	return uint16(n), ""
}

// withoutZeros is an IPv4 address without zeros in front of its numbers, which some
// would read as octal; false: it has none, or is no address.
func withoutZeros(host string) (string, bool) {
	parts := strings.Split(host, ".")
	for i, p := range parts {
		if p = strings.TrimLeft(p, "0"); p == "" && parts[i] != "" {
			p = "0"
		}
		parts[i] = p
	}
	plain := strings.Join(parts, ".")
	addr, err := netip.ParseAddr(plain)
	return plain, err == nil && addr.Is4() && plain != host
}
