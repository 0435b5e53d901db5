package bpf

import (
	"cmp"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// drawTable draws a policy in the canonical form of decodePolicy, whose networks
// are all addresses' prefixes of a few lengths, so that the search needs no others.
func drawTable(t *rapid.T) *Policy {
	p := &Policy{Rules: slicelbRules - 1}
	for range rapid.IntRange(1, 40).Draw(t, "classes") {
		p.Classes = append(p.Classes, PolicyClass{
			Class: rapid.Uint16Max(PolicyMaxClass).Draw(t, "class"), Deny: rapid.Bool().Draw(t, "deny")})
	}
	action := rapid.SampledFrom([]PolicyAction{PolicyAllow, PolicyDeny, PolicyAudit})
	rule := rapid.Uint32Range(1, p.Rules)
	for range rapid.IntRange(0, 20).Draw(t, "rows") {
		r := PolicyRow{}
		if rapid.Bool().Draw(t, "any") {
			r.Action, r.Rule = action.Draw(t, "action"), rule.Draw(t, "rule")
		}
		for _, class := range rapid.SliceOfNDistinct(rapid.Uint16Range(1, PolicyMaxClass), 0, 12, rapid.ID).Draw(t, "except") {
			r.Except = append(r.Except, PolicyException{class, action.Draw(t, "action"), rule.Draw(t, "rule")})
		}
		slices.SortFunc(r.Except, func(a, b PolicyException) int { return cmp.Compare(a.Class, b.Class) })
		p.Rows = append(p.Rows, r)
	}
	row := rapid.Uint32Max(uint32(len(p.Rows)))
	n := rapid.IntRange(0, 8).Draw(t, "tables")
	for range n {
		var table []PolicyPorts
		lows := append([]uint16{0}, rapid.SliceOfNDistinct(rapid.Uint16Range(1, 65535), 0, 9, rapid.ID).Draw(t, "ports")...)
		slices.Sort(lows)
		for _, low := range lows {
			table = append(table, PolicyPorts{low, row.Draw(t, "tcp"), row.Draw(t, "udp")})
		}
		p.Tables = append(p.Tables, table)
	}
	seen := map[netip.Prefix]bool{}
	for i := range n * 3 {
		addr := drawAddrPort(t).Addr()
		prefix := netip.PrefixFrom(addr, rapid.IntRange(0, addr.BitLen()).Draw(t, "length")).Masked()
		if seen[prefix] || prefix.Addr().Is4In6() {
			continue
		}
		seen[prefix] = true
		// Every table is named, in the order of the tables.
		p.Networks = append(p.Networks, PolicyNetwork{prefix, uint32(i % n)})
	}
	named := map[uint32]bool{}
	for _, n := range p.Networks {
		named[n.Table] = true
	}
	if len(named) != n {
		t.Skip("a table that nothing names is not read back")
	}
	slices.SortFunc(p.Networks, func(a, b PolicyNetwork) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return p
}

// A policy is read back as it was written; its sum says when it is another.
func TestPolicyRoundTrip(t *testing.T) {
	samePrefix := gocmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	rapid.Check(t, func(t *rapid.T) {
		p := drawTable(t)
		lines, err := p.encode()
		if err != nil {
			t.Fatal(err)
		}
		at := make([]policyLine, len(lines)+3)
		copy(at[2:], lines)
		got, err := policyAt(at, 2)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(p, decodePolicy(got), samePrefix); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		n, sum, err := p.Lines()
		if err != nil || int(n) != len(lines) || sum != lines[0].W[policySum] {
			t.Fatalf("%d lines, sum %x, %v", n, sum, err)
		}
		more := *p
		more.Classes = append(slices.Clone(p.Classes), PolicyClass{Class: 7})
		if _, other, err := more.Lines(); err != nil || other != sum {
			t.Fatalf("with another class its sum is %x, not %x, %v", other, sum, err)
		}
		more = *p
		more.Rules++
		if _, other, err := more.Lines(); err != nil || other == sum {
			t.Fatalf("with another rule its sum is the same: %x, %v", other, err)
		}
		bit := rapid.IntRange(policyData*512, int(got[0].W[policyClasses]&0xffffffff)*512-1).Draw(t, "bit")
		got[bit/512].W[bit/64%8] ^= 1 << (bit % 64)
		if _, err := policyAt(at, 2); err == nil {
			t.Fatal("a bit is another, and it is not noticed")
		}
	})
}

func TestPolicyRefuses(t *testing.T) {
	rows := []PolicyRow{{Action: PolicyDeny, Rule: 1}}
	table := [][]PolicyPorts{{{0, 1, 1}}}
	any4 := netip.MustParsePrefix("0.0.0.0/0")
	for name, p := range map[string]*Policy{
		"too many rules":    {Rules: slicelbRules + 1},
		"a rule too far":    {Rules: 0, Rows: rows},
		"a class too far":   {Classes: []PolicyClass{{Class: 1 << 15}}},
		"an exempt class":   {Rules: 1, Rows: []PolicyRow{{Except: []PolicyException{{0, PolicyDeny, 1}}}}},
		"an empty table":    {Tables: [][]PolicyPorts{{}}},
		"no first port":     {Tables: [][]PolicyPorts{{{1, 0, 0}}}},
		"ports that fall":   {Tables: [][]PolicyPorts{{{0, 0, 0}, {5, 0, 0}, {4, 0, 0}}}},
		"a row too far":     {Tables: table},
		"a table too far":   {Networks: []PolicyNetwork{{any4, 0}}},
		"host bits":         {Rules: 1, Rows: rows, Tables: table, Networks: []PolicyNetwork{{netip.MustParsePrefix("10.0.0.1/8"), 0}}},
		"a mapped network":  {Rules: 1, Rows: rows, Tables: table, Networks: []PolicyNetwork{{netip.MustParsePrefix("::ffff:10.0.0.0/104"), 0}}},
		"an invalid prefix": {Rules: 1, Rows: rows, Tables: table, Networks: []PolicyNetwork{{}}},
	} {
		if _, err := p.encode(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
