package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// policySpecs are the variants of -policy: what rules cost a call that they do not
// concern, one to a network of theirs, and one to a VIP.
var policySpecs = []spec{
	{"bare", directAddr, nil},
	{"empty program", directAddr, (*variant).attachEmpty},
	{"no VIP, no rule", directAddr, (*variant).attachOne},
	{"no VIP, 1 rule", directAddr, ruled(1, "192.0.2.0/24")},
	{"no VIP, 10,000", directAddr, ruled(10000, "192.0.2.0/24")},
	{"network, 1 rule", directAddr, ruled(1, directAddr.Addr().String())},
	{"network, 10,000", directAddr, ruled(10000, directAddr.Addr().String())},
	{"VIP, no rule", vipAddr, (*variant).attachOne},
	{"VIP, 1 rule", vipAddr, ruled(1, "v0")},
	{"VIP, 10,000", vipAddr, ruled(10000, "v0")},
}

func (v *variant) attachOne() error { return v.attachSlicelb(1, 1, 1) }

// ruled attaches slicelb with so many rules, of which the last is about to; the
// others are about networks of several lengths and ports, elsewhere.
func ruled(n int, to string) func(*variant) error {
	var b strings.Builder
	for i := range n - 1 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 16+i%9).Masked()
		fmt.Fprintf(&b, "[[policy.rule]]\nfrom = [\"g0\"]\nto = [\"%s:%d\"]\naction = \"deny\"\n", p, 1+i%1000)
	}
	fmt.Fprintf(&b, "[[policy.rule]]\nfrom = [\"g0\"]\nto = [\"%s\"]\naction = \"allow\"\n", to)
	return func(v *variant) error { return v.attachRuled(b.String()) }
}
