package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestRenderParse: what the daemon keeps as the last good configuration is the
// configuration.
func TestRenderParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyConfig(t)
		for _, origins := range []bool{false, true} {
			var b bytes.Buffer
			if err := want.Render(&b, origins); err != nil {
				t.Fatal(err)
			}
			got, err := Parse("rendered", b.Bytes())
			if err != nil {
				t.Fatalf("%s\n%s", b.Bytes(), errorText(err))
			}
			if diff := cmp.Diff(want, got, noPlaces); diff != "" {
				t.Fatalf("(-want +got):\n%s\n%s", diff, b.Bytes())
			}
			var again bytes.Buffer
			if err := got.Render(&again, false); err != nil {
				t.Fatal(err)
			}
			if !origins && !bytes.Equal(b.Bytes(), again.Bytes()) {
				t.Fatalf("not canonical (-want +got):\n%s", cmp.Diff(b.String(), again.String()))
			}
		}
	})
}

// TestRenderWarns: what says every default warns of nothing more than what leaves
// them out.
func TestRenderWarns(t *testing.T) {
	text, err := os.ReadFile("testdata/whole.toml")
	if err != nil {
		t.Fatal(err)
	}
	messages := func(text []byte) (*Config, []string) {
		b := newBuilder()
		b.read(&fileText{name: "a.toml", data: text})
		c, warnings, err := b.finish()
		if err != nil {
			t.Fatal(errorText(err))
		}
		out := []string{}
		for _, w := range warnings {
			out = append(out, w.Message)
		}
		slices.Sort(out)
		return c, out
	}
	for _, text := range [][]byte{text, []byte(okGroups + okVIP + okBack)} {
		c, want := messages(text)
		var b bytes.Buffer
		if err := c.Render(&b, true); err != nil {
			t.Fatal(err)
		}
		_, got := messages(b.Bytes())
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s\n%s", diff, b.Bytes())
		}
	}
}

// TestRenderPrintable: what is printed is fit for a terminal, other people's names of
// files and cgroups too.
func TestRenderPrintable(t *testing.T) {
	const evil = "a\x1b]2;x\u009b31m\u202e\u200b\U000e0001\x7f"
	root := tree(t, "etc/slicelb/conf.d/"+evil+"\n.toml", "[group.a]\nslices = [\"/"+strings.NewReplacer("\x1b", `\u001b`, "\x7f", `\u007f`).Replace(evil)+"\"]\n")
	want, _, err := Installed(root).Load()
	if err != nil {
		t.Fatal(errorText(err))
	}
	text, err := want.Text(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%U is printed as it is", r)
		}
	}
	if got, err := Parse("rendered", []byte(text)); err != nil {
		t.Error(errorText(err))
	} else if got.Groups[0].Anchors[0].Text != "/"+evil {
		t.Errorf("it is %q again", got.Groups[0].Anchors[0].Text)
	}
}

// anyUnits draws backends that are units, of both families or none.
func anyUnits(t *rapid.T, label string, at Position) (list []UnitBackend) {
	if !rapid.Bool().Draw(t, label) {
		return nil
	}
	unit := rapid.SampledFrom([]string{"web@*.service", `a\x2db@*.socket`, "x@1.scope", "*@*.service"})
	for _, u := range rapid.SliceOfNDistinct(unit, 1, 3, rapid.ID).Draw(t, "unit") {
		weight := rapid.Uint32Range(0, maxWeight).Draw(t, "weight")
		list = append(list,
			UnitBackend{Unit: u, Address: rapid.SampledFrom([]string{"127.0.0.1:%i", "10.0.0.%i:80"}).Draw(t, "address"), Weight: weight, Family: 4, Origin: at},
			UnitBackend{Unit: u, Address: "[fd00::%i]:80", Weight: weight, Family: 6, Origin: at})
	}
	return list
}

// anyConfig draws a valid configuration.
func anyConfig(t *rapid.T) *Config {
	at := Position{File: "/etc/slicelb/a\nb.toml", Line: 1, Column: 2} // a hostile file name
	c := &Config{Files: []string{at.File}, Daemon: Daemon{
		LogLevel: rapid.SampledFrom([]string{"debug", "info", "warn", "error"}).Draw(t, "log_level"),
		HTTP:     netip.MustParseAddrPort(rapid.SampledFrom([]string{"127.0.0.1:9781", "[::1]:1", "0.0.0.0:65535"}).Draw(t, "http")),
		Slots:    rapid.Uint32Range(minSlots, maxSlots).Draw(t, "slots"),
		UDPFlows: rapid.OneOf(rapid.Just[uint32](0), rapid.Uint32Range(minUDPFlows, maxUDPFlows)).Draw(t, "udp_flows"),
		Origin:   at,
	}}
	name := rapid.StringMatching(`[a-z0-9]([a-z0-9_-]{0,20}[a-z0-9])?`).Filter(func(s string) bool { return s != "host" && s != "any" })
	component := rapid.StringMatching(`[a-zA-Z0-9 "'#=\\x\]{}é\x{1}\x{7f}*:]{1,12}`).Filter(func(s string) bool { return !strings.HasSuffix(s, `\`) })

	groupNames := rapid.SliceOfNDistinct(name, 0, 5, rapid.ID).Draw(t, "groups")
	seen := map[string]bool{}
	for _, n := range groupNames {
		g := Group{Name: n, Translate: rapid.Bool().Draw(t, "translate"), Origin: at}
		for range rapid.IntRange(1, 3).Draw(t, "slices") {
			text := "/" + strings.Join(rapid.SliceOfN(component, 1, 3).Draw(t, "path"), "/")
			pattern, refused := anchorPattern(text)
			if refused != nil || seen[pattern] {
				text = fmt.Sprintf("s%d.slice", len(seen))
				pattern = "/" + text
			}
			seen[pattern] = true
			g.Anchors = append(g.Anchors, Anchor{Text: text, Pattern: pattern, Origin: at})
		}
		if rapid.Bool().Draw(t, "is split") {
			if s := component.Draw(t, "split"); checkSplit(s) == nil {
				g.Split = s
				g.SplitMetrics = rapid.Uint32Range(0, 50).Draw(t, "split_metrics")
			}
		}
		g.Policy = rapid.SampledFrom([]RuleAction{"", Allow, Deny}).Draw(t, "policy")
		g.Strict = rapid.Bool().Draw(t, "strict")
		c.Groups = append(c.Groups, g)
	}

	down := rapid.SampledFrom([]WhenDown{DownReject, DownUseAll, DownPass})
	weight := rapid.Uint32Range(0, maxWeight)
	port := rapid.Uint16Range(1, 65535)
	v4 := rapid.Custom(func(t *rapid.T) netip.Addr {
		return netip.AddrFrom4([4]byte{10, rapid.Byte().Draw(t, "b"), rapid.Byte().Draw(t, "c"), rapid.Byte().Draw(t, "d")})
	})
	v6 := rapid.Custom(func(t *rapid.T) netip.Addr {
		a := [16]byte{0: 0xfd}
		copy(a[8:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "low"))
		return netip.AddrFrom16(a)
	})
	backends := func(label string) (list []Backend) {
		if !rapid.Bool().Draw(t, label) {
			return nil
		}
		// Of both families, so that every frontend has one.
		for _, g := range []*rapid.Generator[netip.Addr]{v4, v6} {
			for _, a := range rapid.SliceOfNDistinct(g, 1, 3, rapid.ID).Draw(t, "backends") {
				list = append(list, Backend{Addr: netip.AddrPortFrom(a, port.Draw(t, "port")), Weight: weight.Draw(t, "weight"), Origin: at})
			}
		}
		return list
	}
	taken := map[string]bool{}
	for _, n := range rapid.SliceOfNDistinct(name, 0, 4, rapid.ID).Draw(t, "vips") {
		v := VIP{
			Name: n, WhenDown: down.Draw(t, "down"), Origin: at,
			Algorithm: rapid.SampledFrom([]Algorithm{Random, Maglev, LeastConnections}).Draw(t, "algorithm"),
			Affinity:  time.Duration(rapid.IntRange(0, 86400).Draw(t, "affinity")) * time.Second,
			Hidden:    rapid.SampledFrom([]Hidden{HiddenPass, HiddenReject}).Draw(t, "hidden"),
			Backends:  backends("backend"), Units: anyUnits(t, "units", at),
			Terminate:    rapid.SampledFrom([]Terminate{TerminateUDP, TerminateAll, TerminateNone}).Draw(t, "terminate"),
			DrainTimeout: time.Duration(rapid.Int64Range(0, int64(maxDrainTimeout/time.Millisecond)).Draw(t, "drain_timeout")) * time.Millisecond,
		}
		for i := range rapid.IntRange(1, 3).Draw(t, "frontends") {
			f := Frontend{
				Addr:  netip.AddrPortFrom(rapid.OneOf(v4, v6).Draw(t, "address"), port.Draw(t, "port")),
				Proto: rapid.SampledFrom([]Proto{TCP, UDP}).Draw(t, "protocol"), Origin: at,
			}
			if taken[f.String()] {
				f.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 16, byte(len(c.VIPs)), byte(i)}), 1)
			}
			taken[f.String()] = true
			v.Frontends = append(v.Frontends, f)
		}
		if rapid.Bool().Draw(t, "health") {
			v.Health = anyHealth(t, at)
		}
		open := rapid.Bool().Draw(t, "open")
		if !open {
			v.Clients = []string{}
		}
		if rapid.Bool().Draw(t, "has except") {
			v.Except = []string{}
		}
		for _, g := range append([]Group{{Name: hostGroup, Translate: true}}, c.Groups...) {
			switch choice := rapid.IntRange(0, 3).Draw(t, "role of "+g.Name); {
			case choice == 0 && !open:
				v.Clients = append(v.Clients, g.Name)
			case choice == 1 && v.Except != nil:
				v.Except = append(v.Except, g.Name)
			case choice == 2 && g.Translate:
				if !open {
					v.Clients = append(v.Clients, g.Name)
				}
				v.For = append(v.For, View{Group: g.Name, WhenDown: down.Draw(t, "down"), Backends: backends("view"), Origin: at})
			}
		}
		slices.SortFunc(v.For, func(a, b View) int { return strings.Compare(a.Group, b.Group) })
		c.VIPs = append(c.VIPs, v)
	}
	slices.SortFunc(c.VIPs, func(a, b VIP) int { return strings.Compare(a.Name, b.Name) })
	c.Policy = anyPolicy(t, c, at)
	return c
}

func anyHealth(t *rapid.T, at Position) *Health {
	interval := rapid.Int64Range(int64(minInterval), int64(maxInterval)).Draw(t, "interval")
	h := &Health{
		Type:     rapid.SampledFrom([]HealthType{HealthTCP, HealthHTTP, HealthHTTPS}).Draw(t, "type"),
		Interval: time.Duration(interval),
		Timeout:  time.Duration(rapid.Int64Range(int64(minTimeout), interval).Draw(t, "timeout")),
		Fall:     rapid.Uint32Range(1, maxCount).Draw(t, "fall"), Rise: rapid.Uint32Range(1, maxCount).Draw(t, "rise"),
		Initial:        rapid.SampledFrom([]Initial{InitialDown, InitialUp}).Draw(t, "initial"),
		Passive:        rapid.Bool().Draw(t, "passive"),
		PanicThreshold: rapid.Uint32Range(0, 100).Draw(t, "panic"),
		SlowStart:      time.Duration(rapid.Int64Range(0, int64(maxSlowStart)).Draw(t, "slow start")),
		Origin:         at,
	}
	if h.Type == HealthTCP {
		return h
	}
	h.Path = rapid.SampledFrom([]string{"/", "/a\\b\"c", "/x?y=z"}).Draw(t, "path")
	h.Host = rapid.SampledFrom([]string{"", "a.example.com", "192.0.2.1:80", "::1"}).Draw(t, "host")
	h.Expect = rapid.SampledFrom([][]StatusRange{{{200, 399}}, {{204, 204}}, {{200, 201}, {299, 299}, {500, 599}}}).Draw(t, "expect")
	for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"A", "b-c", "x.y", "Z_1"}), 0, 3, rapid.ID).Draw(t, "headers") {
		h.Headers = append(h.Headers, Header{n, rapid.SampledFrom([]string{"", "a \"b\"", "\\"}).Draw(t, "value")})
	}
	slices.SortFunc(h.Headers, func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
	if h.Type == HealthHTTPS {
		if h.Insecure = rapid.Bool().Draw(t, "insecure"); !h.Insecure && rapid.Bool().Draw(t, "has ca") {
			h.CAFile = "/etc/\n ca.pem"
		}
	}
	return h
}
