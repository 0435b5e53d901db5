package lb

import (
	"fmt"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/config"
)

// A rule is told of when those before it leave it nothing, and not when they leave it
// a port, a protocol, a group, an address or a family.
func TestCoveredRules(t *testing.T) {
	const objects = `
[group.web]
slices = ["web.slice"]
[group.jobs]
slices = ["jobs.slice"]
[vip.db]
frontends = ["10.96.0.10:5432", "[fd00:96::10]:5432"]
[[vip.db.backend]]
address = "192.0.2.11:5432"
[[vip.db.backend]]
address = "[2001:db8::11]:5432"
[vip.dns]
frontends = ["10.96.0.53:53/udp"]
[[vip.dns.backend]]
unit = "dns@*.service"
address = "127.0.0.%i:53"
[vip.canary]
frontends = ["10.96.0.20:80"]
[vip.canary.for.web]
[[vip.canary.for.web.backend]]
unit = "canary.service"
address = "127.0.0.2:80"
`
	for _, tt := range []struct {
		what  string
		rules string // "from -> to, to", one a line
		want  string // "rule by rule rule", from 1
	}{
		{"none", "", ""},
		{"no two alike", "web -> 10.0.0.0/8\nweb -> 192.0.2.0/24\nweb -> db", ""},

		{"twice", "web -> 10.0.0.0/8\nweb -> 10.0.0.0/8", "2 by 1"},
		{"in a larger network", "web -> 10.0.0.0/8\nweb -> 10.1.0.0/16:80, 10.2.0.1/32", "2 by 1"},
		{"a larger network", "web -> 10.1.0.0/16\nweb -> 10.0.0.0/8", ""},
		{"everything", "any -> 0.0.0.0/0\nweb -> 10.0.0.0/8\njobs -> db", "2 by 1"},
		{"one target of two", "web -> 10.0.0.0/8\nweb -> 10.1.0.0/16, 192.0.2.1", ""},
		{"two targets, two rules", "web -> 10.0.0.0/8\nweb -> 192.0.2.0/24\nweb -> 10.1.0.0/16, 192.0.2.1", "3 by 1 2"},
		{"by what is covered too", "web -> 10.0.0.0/8\nweb -> 10.1.0.0/16\nweb -> 10.1.1.0/24", "2 by 1\n3 by 1"},
		{"halves of a network", "web -> 10.0.0.0/9\nweb -> 10.128.0.0/9\nweb -> 10.0.0.0/8", ""}, // not seen

		{"a range of ports", "web -> 10.0.0.0/8:80-90\nweb -> 10.0.0.0/8:82-90", "2 by 1"},
		{"a port more", "web -> 10.0.0.0/8:80-90\nweb -> 10.0.0.0/8:80-91", ""},
		{"a port less", "web -> 10.0.0.0/8:80-90\nweb -> 10.0.0.0/8:79-90", ""},
		{"all ports", "web -> 10.0.0.0/8:1-65535\nweb -> 10.0.0.0/8", ""}, // port 0
		{"ranges side by side", "web -> 10.0.0.0/8:80-84\nweb -> 10.0.0.0/8:85-90\nweb -> 10.0.0.0/24:80-90", "3 by 1 2"},
		{"ranges with a hole", "web -> 10.0.0.0/8:80-84\nweb -> 10.0.0.0/8:86-90\nweb -> 10.0.0.0/24:80-90", ""},
		{"the last port", "web -> 10.0.0.0/8:65535\nweb -> 10.0.0.0/8:65535/udp", "2 by 1"},
		{"one protocol", "web -> 10.0.0.0/8:80/tcp\nweb -> 10.0.0.0/8:80", ""},
		{"both protocols", "web -> 10.0.0.0/8:80/tcp\nweb -> 10.0.0.0/8/udp\nweb -> 10.0.0.0/8:80", "3 by 1 2"},
		{"the other protocol", "web -> 10.0.0.0/8/tcp\nweb -> 10.0.0.0/8/udp", ""},

		{"another group", "web -> 10.0.0.0/8\njobs -> 10.0.0.0/8", ""},
		{"one group of two", "web -> 10.0.0.0/8\nweb jobs -> 10.0.0.0/8", ""},
		{"two groups, two rules", "web -> 10.0.0.0/8\njobs -> 10.0.0.0/8:80\nweb jobs -> 10.0.0.0/8:80", "3 by 1 2"},
		{"all groups", "any -> 10.0.0.0/8\nhost web -> 10.0.0.0/8", "2 by 1"},
		{"the rest", "web -> 10.0.0.0/8\nany -> 10.0.0.0/8", ""},
		{"all, twice", "web -> 10.0.0.0/8:80\nany -> 10.0.0.0/8\nany -> 10.0.0.0/8", "3 by 1 2"},

		{"a VIP", "web -> db\nweb -> 10.96.0.10:5432/tcp", "2 by 1"},
		{"both families of a VIP", "web -> 10.96.0.0/16\nweb -> fd00:96::/64\nweb -> db", "3 by 1 2"},
		{"one family of a VIP", "web -> 10.96.0.0/16\nweb -> db", ""},
		{"a VIP's protocol", "web -> 10.96.0.0/16/tcp\nweb -> dns", ""},
		{"a VIP's address", "web -> db\nweb -> 10.96.0.10", ""},
		{"backends", "web -> 192.0.2.0/24\nweb -> 2001:db8::/32\nweb -> db\nweb -> db+backends", "4 by 1 2 3"},
		{"backends, too", "web -> db\nweb -> db+backends", ""},
		{"backends that are units", "any -> 0.0.0.0/0\nweb -> dns+backends\nweb -> canary+backends\nweb -> dns", "4 by 1"},

		{"IPv6", "web -> fd00::/8\nweb -> [fd00:96::/64]:80-90/tcp\nweb -> fd00:96::1\nweb -> 2001:db8::/32", "2 by 1\n3 by 1"},
		{"of one family alone", "web -> ::/0\nweb -> 10.0.0.0/8", ""},
		{"by many", "web -> 10.0.0.0/8:1\nweb -> 10.0.0.0/8:2\nweb -> 10.0.0.0/8:3\nweb -> 10.0.0.0/8:4\nweb -> 10.0.0.0/8:5\nweb -> 10.0.0.0/8:1-5", "6 by 1 2 3 4"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			text := objects
			for line := range strings.Lines(tt.rules) {
				from, to, _ := strings.Cut(strings.TrimSpace(line), " -> ")
				text += fmt.Sprintf("[[policy.rule]]\nfrom = [%s]\nto = [%s]\naction = \"deny\"\n",
					quoted(strings.Fields(from)), quoted(strings.Split(to, ", ")))
			}
			cfg, err := config.Parse("test", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			covered, err := CoveredRules(cfg)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range covered {
				line := fmt.Sprintf("%d by", c.Rule+1)
				for _, by := range c.By {
					line += fmt.Sprintf(" %d", by+1)
				}
				got = append(got, line)
			}
			if got := strings.Join(got, "\n"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(out, ", ")
}
