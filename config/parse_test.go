package config

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// noPlaces compares configurations without where they stand.
var noPlaces = cmp.Options{
	cmpopts.IgnoreTypes(Position{}),
	cmpopts.IgnoreFields(Config{}, "Files", "Main"),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestParse(t *testing.T) {
	got, err := Parse("a.toml", []byte(`
[daemon]
log_level = "debug"
slots = 65536

[group.web]
slices = ["web.slice"]

[group.jobs]
slices = ["nomad-x.slice", "/nomad.slice/share-*.slice"]
split = "*.scope"

[group.proxy]
slices = ["proxy.slice"]
translate = false

[vip.db]
frontends = ["10.96.0.10:5432", "[fd00:96::10]:5432/udp"]
algorithm = "random"
clients = ["web", "jobs"]
hidden = "reject"
when_down = "use-all"
drain_timeout = "5m"
terminate = "all"

[[vip.db.backend]]
address = "192.0.2.11:5432"
weight = 3

[[vip.db.backend]]
address = "[2001:db8::1]:5432"

[[vip.db.backend]]
unit = "pg@*.service"
address = "127.0.0.1:%i"
weight = 2

[vip.db.for.jobs]
backend = [{ address = "192.0.2.20:5432" }, { address = "[2001:db8::2]:1", weight = 0 }]

[vip.cache]
frontends = ["127.0.0.9:6379/tcp"]
except = ["proxy"]
`))
	if err != nil {
		t.Fatal(err)
	}
	ap := netip.MustParseAddrPort
	want := &Config{
		Daemon: Daemon{LogLevel: "debug", Slots: 65536, UDPFlows: DefaultUDPFlows},
		Groups: []Group{
			{Name: "web", Translate: true, Anchors: []Anchor{{Text: "web.slice", Pattern: "/web.slice"}}},
			{Name: "jobs", Translate: true, Split: "*.scope", Anchors: []Anchor{
				{Text: "nomad-x.slice", Pattern: "/nomad.slice/nomad-x.slice"},
				{Text: "/nomad.slice/share-*.slice", Pattern: "/nomad.slice/share-*.slice"},
			}},
			{Name: "proxy", Anchors: []Anchor{{Text: "proxy.slice", Pattern: "/proxy.slice"}}},
		},
		Policy: Policy{Default: Allow},
		VIPs: []VIP{
			{
				Name: "cache", Algorithm: Random, Hidden: HiddenPass, WhenDown: DownReject, Terminate: TerminateUDP, Except: []string{"proxy"},
				Frontends: []Frontend{{Addr: ap("127.0.0.9:6379"), Proto: TCP}},
			},
			{
				Units:        []UnitBackend{{Unit: "pg@*.service", Address: "127.0.0.1:%i", Weight: 2, Family: 4}},
				DrainTimeout: 5 * time.Minute,
				Name:         "db", Algorithm: Random, Hidden: HiddenReject, WhenDown: DownUseAll, Terminate: TerminateAll, Clients: []string{"web", "jobs"},
				Frontends: []Frontend{{Addr: ap("10.96.0.10:5432"), Proto: TCP}, {Addr: ap("[fd00:96::10]:5432"), Proto: UDP}},
				Backends:  []Backend{{Addr: ap("192.0.2.11:5432"), Weight: 3}, {Addr: ap("[2001:db8::1]:5432"), Weight: 1}},
				For: []View{{
					Group: "jobs", WhenDown: DownUseAll,
					Backends: []Backend{{Addr: ap("192.0.2.20:5432"), Weight: 1}, {Addr: ap("[2001:db8::2]:1")}},
				}},
			},
		},
	}
	if diff := cmp.Diff(want, got, noPlaces); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantAt := Position{File: "a.toml", Line: 6, Column: 2}
	if got.Groups[0].Origin != wantAt {
		t.Errorf("group.web stands at %v, want %v", got.Groups[0].Origin, wantAt)
	}
}
