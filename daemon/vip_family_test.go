package daemon

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/api"
)

// A family whose backends are all out is told, beside one that is well; so are units of
// which none runs. A family that nothing is configured for is not.
func TestVIPFamilies(t *testing.T) {
	src := parse(t, `
[group.web]
slices = ["web.slice"]
[vip.both]
frontends = ["10.96.0.1:80", "[fd00:96::1]:80"]
backend = [{ address = "192.0.2.1:80" }, { address = "192.0.2.2:80" }, { address = "[fd00::1]:80" }]
[vip.down]
frontends = ["10.96.0.2:80"]
backend = [{ address = "192.0.2.1:80" }]
when_down = "pass"
[vip.none]
frontends = ["10.96.0.3:80"]
[vip.units]
frontends = ["10.96.0.4:80"]
backend = [{ unit = "shop@*.service", address = "127.0.0.1:%i" }]
[vip.views]
frontends = ["10.96.0.5:80"]
[vip.views.for.web]
backend = [{ address = "192.0.2.1:80" }]
[vip.own]
frontends = ["10.96.0.7:80"]
clients = ["web"]
backend = [{ address = "192.0.2.1:80" }]
[vip.own.for.web]
backend = [{ address = "192.0.2.2:80" }]
[vip.most]
frontends = ["10.96.0.8:80"]
backend = [{ address = "192.0.2.1:80" }]
[vip.most.for.web]
backend = [{ address = "192.0.2.2:80" }]
[vip.well]
frontends = ["10.96.0.6:80"]
backend = [{ address = "192.0.2.1:80" }]
`)
	c := &counted{source: src, share: map[shareKey]float64{
		{"both", "", netip.MustParseAddrPort("[fd00::1]:80")}:     1,
		{"views", "web", netip.MustParseAddrPort("192.0.2.1:80")}: 1,
		{"most", "web", netip.MustParseAddrPort("192.0.2.2:80")}:  1,
		{"own", "web", netip.MustParseAddrPort("192.0.2.2:80")}:   1,
		{"well", "", netip.MustParseAddrPort("192.0.2.1:80")}:     1,
	}}
	type told struct {
		Families []api.Family
		Note     string
	}
	got := map[string]told{}
	for i := range src.cfg.VIPs {
		v := c.vipOf(&src.cfg.VIPs[i])
		got[v.Name] = told{v.Families, downNote(&v)}
		if v.Name == "own" && v.Backends[0].Reason != "serves nobody: each of the VIP's clients has a for" {
			t.Errorf("%+v", v.Backends[0])
		}
	}
	want := map[string]told{
		"both":  {[]api.Family{{Family: 4}, {Family: 6, Up: 1}}, `vip.both: no IPv4 backend takes connections; when_down = "reject"`},
		"down":  {[]api.Family{{Family: 4}}, `vip.down: no backend takes connections; when_down = "pass"`},
		"most":  {[]api.Family{{Family: 4}}, `vip.most: no backend takes connections; when_down = "reject"`}, // of those that most callers get
		"none":  {},
		"own":   {[]api.Family{{Family: 4, Up: 1}}, ""},
		"units": {[]api.Family{{Family: 4}}, `vip.units: no backend takes connections; when_down = "reject"`},
		"views": {[]api.Family{{Family: 4, Up: 1}}, ""},
		"well":  {[]api.Family{{Family: 4, Up: 1}}, ""},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
