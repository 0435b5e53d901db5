package config

import "net/netip"

// readListen reads where the daemon serves its page and its metrics; the zero
// value is nowhere.
func (b *builder) readListen(t *table) netip.AddrPort {
	text, at, said := t.text("http")
	if !said || text == "" {
		return netip.AddrPort{}
	}
	addr, refused := parseListen(text)
	if refused != nil {
		b.errorf(at, refused.hint, "%s", refused.message)
		return netip.AddrPort{}
	}
	if !addr.Addr().IsLoopback() {
		b.warnf(at, `http = "127.0.0.1:9781"`, "http %s is no loopback address: who reaches it reads the names, addresses and counts of all VIPs and groups, and is not asked who they are", quote(text))
	}
	return addr
}

// parseListen reads "address:port" of a socket that listens.
func parseListen(text string) (netip.AddrPort, *refusal) {
	if addr, err := netip.ParseAddrPort(text); err == nil && addr.Addr().IsUnspecified() && addr.Port() != 0 {
		return addr, nil // every address of the host
	}
	addr, refused := parseAddrPort("http", text, text)
	if refused != nil && refused.hint == "" {
		refused.hint = `http = "127.0.0.1:9781"`
	}
	return addr, refused
}
