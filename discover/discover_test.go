package discover

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/config"
)

const conf = `
[group.web]
slices = ["web.slice"]

[vip.a]
frontends = ["10.96.0.1:80", "[fd00:96::1]:80"]

[[vip.a.backend]]
address = "192.0.2.1:80"

[[vip.a.backend]]
unit = "web@*.service"
address = "127.0.0.1:%i"
weight = 2

[[vip.a.backend]]
unit = "web@*.service"
address = "[::1]:%i"

[[vip.a.backend]]
unit = "pg.service"
address = "127.0.0.1:5432"

[vip.a.for.web]
[[vip.a.for.web.backend]]
unit = "w*@*.service"
address = "127.0.0.1:%i"

[[vip.a.for.web.backend]]
address = "[2001:db8::1]:80"

[vip.b]
frontends = ["10.96.0.2:80"]
[[vip.b.backend]]
address = "192.0.2.1:80"
`

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("a.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func match(pattern, unit string) bool {
	ok, err := path.Match(pattern, unit)
	return ok && err == nil
}

func text(list []config.Backend) string {
	var out []string
	for _, b := range list {
		out = append(out, fmt.Sprintf("%s/%d/%s", b.Addr, b.Weight, b.Unit))
	}
	return strings.Join(out, " ")
}

func TestExpand(t *testing.T) {
	cfg := parse(t, conf)
	units := &Units{Patterns: cfg.UnitPatterns(), List: []Unit{
		{Name: "pg.service", State: Failed},
		{Name: "web@1.service", State: Active},
		{Name: "web@2.service", State: Deactivating},
		{Name: "web@x.service", State: Active},
	}}
	e := Expand(cfg, units, match)
	a := e.Config.VIPs[0]
	if got, want := text(a.Backends), "192.0.2.1:80/1/ 127.0.0.1:1/2/web@1.service 127.0.0.1:2/2/web@2.service [::1]:1/1/web@1.service [::1]:2/1/web@2.service 127.0.0.1:5432/1/pg.service"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := text(a.For[0].Backends), "[2001:db8::1]:80/1/ 127.0.0.1:1/1/web@1.service 127.0.0.1:2/1/web@2.service"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := text(e.Config.VIPs[1].Backends); got != "192.0.2.1:80/1/" {
		t.Errorf("got  %s", got)
	}
	for addr, want := range map[string]State{"127.0.0.1:1": Active, "[::1]:2": Deactivating, "127.0.0.1:5432": Failed} {
		if got := e.Units[Endpoint{"a", netip.MustParseAddrPort(addr)}].State; got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	if len(e.Units) != 5 || len(e.Wrong) != 3 || !strings.Contains(e.Wrong[0], "vip.a: unit web@x.service is no backend: ") {
		t.Errorf("%d units; %q", len(e.Units), e.Wrong)
	}
	// What came in is as it was.
	if got := text(cfg.VIPs[0].Backends) + text(cfg.VIPs[0].For[0].Backends); got != "192.0.2.1:80/1/[2001:db8::1]:80/1/" {
		t.Errorf("changed: %s", got)
	}
	if e := Expand(cfg, nil, match); e.Config != cfg {
		t.Error("nothing known: another configuration")
	}
}

// Ten thousand units of a thousand VIPs: each VIP looks at its own.
func BenchmarkExpand(b *testing.B) {
	var text strings.Builder
	units := &Units{}
	for v := range 1000 {
		fmt.Fprintf(&text, "[vip.v%d]\nfrontends = [\"10.96.%d.%d:80\"]\nbackend = [{ unit = \"u%04d@*.service\", address = \"127.0.0.1:%%i\" }]\n", v, v/250, v%250+1, v)
		for i := range 10 {
			units.List = append(units.List, Unit{Name: fmt.Sprintf("u%04d@%d.service", v, 1000+i), State: Active})
		}
	}
	cfg, err := config.Parse("a.toml", []byte(text.String()))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if e := Expand(cfg, units, match); len(e.Units) != 10_000 {
			b.Fatalf("%d units", len(e.Units))
		}
	}
}

// One address is one backend, whoever has it.
func TestExpandTwice(t *testing.T) {
	cfg := parse(t, "[vip.a]\nfrontends = [\"10.96.0.1:80\"]\nbackend = [\n{ address = \"127.0.0.1:3\" },\n"+
		"{ unit = \"blue.service\", address = \"127.0.0.1:1\" },\n{ unit = \"green.service\", address = \"127.0.0.1:1\" },\n{ unit = \"web@*.service\", address = \"127.0.0.1:%i\" } ]\n")
	for _, tt := range []struct {
		units []Unit
		want  string
		state State
		wrong int
	}{
		{[]Unit{{Name: "blue.service", State: Active}}, "127.0.0.1:3/1/ 127.0.0.1:1/1/blue.service", Active, 0},
		{[]Unit{{Name: "green.service", State: Active}}, "127.0.0.1:3/1/ 127.0.0.1:1/1/green.service", Active, 0},
		{[]Unit{{Name: "blue.service", State: Deactivating}, {Name: "green.service", State: Active}}, "127.0.0.1:3/1/ 127.0.0.1:1/1/green.service", Active, 0},
		{[]Unit{{Name: "blue.service", State: Active}, {Name: "green.service", State: Failed}}, "127.0.0.1:3/1/ 127.0.0.1:1/1/blue.service", Active, 0},
		{[]Unit{{Name: "blue.service", State: Active}, {Name: "green.service", State: Active}}, "127.0.0.1:3/1/ 127.0.0.1:1/1/blue.service", Active, 1},
		{[]Unit{{Name: "web@3.service", State: Failed}}, "127.0.0.1:3/1/", 0, 1},
	} {
		e := Expand(cfg, &Units{List: tt.units}, match)
		if got := text(e.Config.VIPs[0].Backends); got != tt.want {
			t.Errorf("%v:\ngot  %s\nwant %s", tt.units, got, tt.want)
		}
		if got := e.Units[Endpoint{"a", netip.MustParseAddrPort("127.0.0.1:1")}].State; got != tt.state || len(e.Wrong) != tt.wrong {
			t.Errorf("%v: %v, %q", tt.units, got, e.Wrong)
		}
	}
}

// Over a unit that several names match the closest decides, wherever it stands; a name
// for each family, and one that stands twice, all hold.
func TestExpandClosest(t *testing.T) {
	const glob, own = `{ unit = "web@*.service", address = "127.0.0.1:%i" }`, `{ unit = "web@1.service", address = "127.0.0.1:1", weight = 5 }`
	for _, tt := range []struct{ name, backends, want string }{
		{"a glob, then the unit's own", glob + "," + own, "127.0.0.1:2/1/web@2.service 127.0.0.1:1/5/web@1.service"},
		{"the unit's own, then a glob", own + "," + glob, "127.0.0.1:1/5/web@1.service 127.0.0.1:2/1/web@2.service"},
		{"another address", glob + `,{ unit = "web@1.service", address = "127.0.0.1:8001" }`, "127.0.0.1:2/1/web@2.service 127.0.0.1:8001/1/web@1.service"},
		{"a longer prefix", `{ unit = "w*@1.service", address = "127.0.0.1:%i", weight = 9 },` + glob, "127.0.0.1:1/1/web@1.service 127.0.0.1:2/1/web@2.service"},
		{"equal prefixes", `{ unit = "web@*.service", address = "127.0.0.1:%i", weight = 7 },{ unit = "web@*1.service", address = "127.0.0.1:%i", weight = 9 }`, "127.0.0.1:1/7/web@1.service 127.0.0.1:2/7/web@2.service"},
		{"another family", `{ unit = "web@*.service", address = "[::1]:%i" },` + own, "[::1]:1/1/web@1.service [::1]:2/1/web@2.service 127.0.0.1:1/5/web@1.service"},
		{"a name that stands twice", glob + `,{ unit = "web@*.service", address = "127.0.0.2:%i" }`, "127.0.0.1:1/1/web@1.service 127.0.0.1:2/1/web@2.service 127.0.0.2:1/1/web@1.service 127.0.0.2:2/1/web@2.service"},
		{"no instance of a glob's", `{ unit = "web@*.service", address = "127.0.0.1:8%i" },{ unit = "web@x.service", address = "127.0.0.1:9" }`, "127.0.0.1:81/1/web@1.service 127.0.0.1:82/1/web@2.service 127.0.0.1:9/1/web@x.service"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := parse(t, "[vip.a]\nfrontends = [\"10.96.0.1:80\", \"[fd00:96::1]:80\"]\nbackend = [ { address = \"192.0.2.1:80\" }, { address = \"[2001:db8::1]:80\" },"+tt.backends+" ]\n")
			units := &Units{List: []Unit{{Name: "web@1.service", State: Active}, {Name: "web@2.service", State: Active}}}
			if strings.Contains(tt.backends, "web@x") {
				units.List = append(units.List, Unit{Name: "web@x.service", State: Active})
			}
			e := Expand(cfg, units, match)
			if got := text(e.Config.VIPs[0].Backends[2:]); got != tt.want || len(e.Wrong) > 0 {
				t.Errorf("got  %s %q\nwant %s", got, e.Wrong, tt.want)
			}
			for _, b := range e.Config.VIPs[0].Backends[2:] {
				family := uint8(4)
				if b.Addr.Addr().Is6() {
					family = 6
				}
				name := Closest(cfg.VIPs[0].Units, family, b.Unit, match)
				if !slices.ContainsFunc(cfg.VIPs[0].Units, func(w config.UnitBackend) bool { return w.Unit == name && w.Origin == b.Origin }) {
					t.Errorf("%s is by %q, and not what stands at %s", b.Addr, name, b.Origin)
				}
			}
		})
	}
}

// However many units there are: a list is bounded, and so is what is told.
func TestExpandMany(t *testing.T) {
	cfg := parse(t, "[vip.a]\nfrontends = [\"10.96.0.1:80\"]\nbackend = [{ unit = \"web@*.service\", address = \"127.0.0.1:%i\" }]\n")
	units := &Units{}
	for i := range 5000 {
		units.List = append(units.List, Unit{Name: fmt.Sprintf("web@%d.service", 10000+i), State: Active})
	}
	e := Expand(cfg, units, match)
	if n := len(e.Config.VIPs[0].Backends); n != config.MaxPerVIP || len(e.Wrong) != maxWrong+1 {
		t.Errorf("%d backends, %d lines", n, len(e.Wrong))
	}
}

func TestCovers(t *testing.T) {
	var none *Units
	some := &Units{Patterns: []string{"a", "b"}}
	for _, tt := range []struct {
		units    *Units
		patterns []string
		want     bool
	}{
		{none, nil, true}, {none, []string{"a"}, false}, {some, nil, true}, {some, []string{"b"}, true}, {some, []string{"b", "c"}, false},
	} {
		if got := tt.units.Covers(tt.patterns); got != tt.want {
			t.Errorf("%v covers %v: %v", tt.units, slices.Clone(tt.patterns), got)
		}
	}
}

// What is left out, where there is room for so many in each VIP.
func TestCut(t *testing.T) {
	for _, down := range []State{Failed, Waiting} {
		t.Run(down.String(), func(t *testing.T) { testCut(t, down) })
	}
}

func testCut(t *testing.T, down State) {
	cfg := parse(t, conf)
	begun := time.Unix(1000, 0)
	e := Expand(cfg, &Units{List: []Unit{
		{Name: "pg.service", State: down, Since: begun},
		{Name: "web@1.service", State: Active, Since: begun.Add(3 * time.Second)},
		{Name: "web@2.service", State: Active, Since: begun.Add(2 * time.Second)},
		{Name: "web@3.service", State: Active, Since: begun.Add(1 * time.Second)},
	}}, match)
	had := map[Endpoint]bool{{"a", netip.MustParseAddrPort("127.0.0.1:1")}: true, {"a", netip.MustParseAddrPort("127.0.0.1:5432")}: true}
	if n := e.Most(nil); n != 7 {
		t.Errorf("%d units at most", n)
	}
	if n := e.Most(func(at Endpoint, u Unit) bool { return had[at] && u.State != down }); n != 1 {
		t.Errorf("%d serve at most", n)
	}
	for _, tt := range []struct {
		most      int
		own, view string
		left      int
	}{
		{7, "192.0.2.1:80/1/ 127.0.0.1:1/2/web@1.service 127.0.0.1:2/2/web@2.service 127.0.0.1:3/2/web@3.service [::1]:1/1/web@1.service [::1]:2/1/web@2.service [::1]:3/1/web@3.service 127.0.0.1:5432/1/pg.service",
			"[2001:db8::1]:80/1/ 127.0.0.1:1/1/web@1.service 127.0.0.1:2/1/web@2.service 127.0.0.1:3/1/web@3.service", 0},
		{3, "192.0.2.1:80/1/ 127.0.0.1:1/2/web@1.service 127.0.0.1:3/2/web@3.service [::1]:3/1/web@3.service",
			"[2001:db8::1]:80/1/ 127.0.0.1:1/1/web@1.service 127.0.0.1:3/1/web@3.service", 4},
		{0, "192.0.2.1:80/1/", "[2001:db8::1]:80/1/", 7},
	} {
		cut, left := e.Cut(tt.most, func(at Endpoint) bool { return had[at] })
		v := cut.Config.VIPs[0]
		if got := text(v.Backends); got != tt.own || len(left) != tt.left {
			t.Errorf("%d: %d left out\ngot  %s\nwant %s", tt.most, len(left), got, tt.own)
		}
		if got := text(v.For[0].Backends); got != tt.view {
			t.Errorf("%d, the view:\ngot  %s\nwant %s", tt.most, got, tt.view)
		}
	}
	if n := len(e.Config.VIPs[0].Backends); n != 8 {
		t.Errorf("changed: %d backends", n)
	}
}
