package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/config"
)

const compared = `
[group.web]
slices = ["web.slice"]
[group.canary]
slices = ["canary.slice"]
[group.proxy]
slices = ["proxy.slice"]
translate = false
[group.cache]
slices = ["cache.slice"]

[vip.db]
frontends = ["10.96.0.10:5432", "10.96.0.10:5432/udp"]
clients = ["web", "canary", "proxy"]
hidden = "reject"
[[vip.db.backend]]
address = "192.0.2.11:5432"
weight = 3
[[vip.db.backend]]
address = "192.0.2.12:5432"
[vip.db.for.canary]
[[vip.db.for.canary.backend]]
address = "192.0.2.20:5432"

[vip.dns]
frontends = ["10.96.0.53:53/udp"]
except = ["cache"]
[[vip.dns.backend]]
address = "192.0.2.53:53"

[vip.down]
frontends = ["10.96.0.11:80"]

[vip.gone]
frontends = ["10.96.0.12:80"]
when_down = "pass"
`

func TestCompare(t *testing.T) {
	parse := func(toml string) *config.Config {
		t.Helper()
		c, err := config.Parse("test", []byte(toml))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	base := parse(compared)
	text, err := base.Text(true)
	if err != nil {
		t.Fatal(err)
	}
	same, err := parseRendered(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		want *config.Config
		diff []change
	}{
		{"rendered and read", same, []change{}},
		{"a weight", parse(strings.Replace(compared, "weight = 3", "weight = 4", 1)), []change{
			{"~", "vip.db", []field{{"-", "backend 192.0.2.11:5432 weight 3"}, {"+", "backend 192.0.2.11:5432 weight 4"}}},
		}},
		{"everybody", parse(strings.Replace(compared, "clients = [\"web\", \"canary\", \"proxy\"]\nhidden", "hidden", 1)), []change{
			{"~", "vip.db", []field{{"-", "clients = [web canary proxy]"}, {"+", "clients = any"}}},
		}},
		{"gone", parse(strings.Replace(compared, "[vip.down]\nfrontends = [\"10.96.0.11:80\"]\n", "", 1)), []change{
			{"-", "vip.down", []field{}},
		}},
		{"new", parse(compared + "[vip.zz]\nfrontends = [\"10.96.0.99:80\"]\n"), []change{
			{"+", "vip.zz", []field{
				{"+", "frontend 10.96.0.99:80"}, {"+", "clients = any"}, {"+", "except = []"}, {"+", `hidden = "pass"`}, {"+", `when_down = "reject"`},
				{"+", `drain_timeout = "0s"`}, {"+", `terminate = "udp"`},
			}},
		}},
		{"order of groups", parse("[group.cache]\nslices = [\"cache.slice\"]\n" + strings.Replace(compared, "[group.cache]\nslices = [\"cache.slice\"]\n", "", 1)), []change{
			{"~", "order of groups", []field{{"-", "web canary proxy cache"}, {"+", "cache web canary proxy"}}},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.diff, compare(base, test.want)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
