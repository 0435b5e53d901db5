package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/lb"
)

func (c canned) Policy(context.Context) (*api.Policy, error) {
	if c.is("no-policy") {
		return &api.Policy{Default: "allow"}, nil
	}
	return &api.Policy{
		Default: "allow",
		Groups:  []api.PolicyDefault{{Group: "jobs", Action: "deny"}},
		Rules: []api.Rule{
			{From: []string{"jobs"}, To: []string{"db", "10.1.0.0/16:8000-8999/tcp"}, Action: "allow", Hits: 12, Decides: true, Origin: "/etc/slicelb/slicelb.toml:9:3"},
			{From: []string{"jobs"}, To: []string{"db"}, Action: "deny", Origin: "/etc/slicelb/conf.d/10-a.toml:1:3"},
			{From: []string{"any"}, To: []string{"10.0.0.0/8", "fd00::/8"}, Action: "audit", Hits: 1, Decides: true, Origin: "/etc/slicelb/conf.d/10-a.toml:6:3"},
		},
		Calls: []api.Calls{
			{Group: "jobs", VIP: "db", Counters: api.Counters{Connects: 7, Denied: 2}},
			{Group: "jobs", Counters: api.Counters{Denied: 9}},
			{Group: "web", VIP: "db", Counters: api.Counters{Denied: 1}},
			{Group: "web", VIP: "cache", Counters: api.Counters{Passed: 1}},
		},
		Seen: []api.Seen{
			{Group: "host", Address: "10.0.0.9:53", Proto: "udp", Count: 4, Ago: time.Minute},
			{Group: "web", Address: "[fd00::9]:443", Proto: "tcp", Count: 1, Ago: time.Hour},
		},
		Lost: uint64(btoi(c.is("lost"))),
	}, nil
}

// What suggest prints is a configuration, and allows what was seen.
func TestSuggestionIsPolicy(t *testing.T) {
	p, err := canned{}.Policy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	running, err := canned{}.RunningConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now, err := parseRunning(running)
	if err != nil {
		t.Fatal(err)
	}
	text, rules := suggestion(p, now)
	cfg, err := config.Parse("suggested", []byte(`
[group.web]
slices = ["web.slice"]
[group.jobs]
slices = ["jobs.slice"]
[vip.db]
frontends = ["10.96.0.10:5432"]
[vip.cache]
frontends = ["10.96.0.11:6379"]
[policy]
default = "deny"
`+text))
	if err != nil || rules != 3 || len(cfg.Policy.Rules) != 3 {
		t.Fatalf("%d rules, %v:\n%s", rules, err, text)
	}
	for _, c := range []struct {
		group, addr string
		proto       config.Proto
		want        bpf.PolicyAction
	}{
		{"jobs", "10.96.0.10:5432", config.TCP, bpf.PolicyAllow},
		{"web", "10.96.0.10:5432", config.TCP, bpf.PolicyDeny}, // was denied
		{"web", "10.96.0.11:6379", config.TCP, bpf.PolicyAllow},
		{"jobs", "10.96.0.11:6379", config.TCP, bpf.PolicyDeny},
		{"host", "10.0.0.9:53", config.UDP, bpf.PolicyAllow},
		{"host", "10.0.0.9:53", config.TCP, bpf.PolicyDefault},
		{"web", "10.0.0.9:53", config.UDP, bpf.PolicyDeny},
		{"web", "[fd00::9]:443", config.TCP, bpf.PolicyAllow},
	} {
		if got := lb.Judge(cfg, c.group, netip.MustParseAddrPort(c.addr), c.proto); got.Action != c.want {
			t.Errorf("%s to %s: %s, want %s", c.group, c.addr, got.Action, c.want)
		}
	}
}

// A VIP of several frontends is named where all were called, or where nobody knows
// which: what an audit saw is as exact as that. Nothing is said twice.
func TestSuggestionOfFrontends(t *testing.T) {
	cfg, err := config.Parse("running", []byte(`
[vip.many]
frontends = ["10.96.0.90:80", "10.96.0.90:81", "10.96.0.91:80/udp"]
`))
	if err != nil {
		t.Fatal(err)
	}
	once := api.Counters{Connects: 1}
	seen := func(group string, addresses ...string) (out []api.Seen) {
		for _, a := range addresses {
			addr, proto, _ := strings.Cut(a, "/")
			out = append(out, api.Seen{Group: group, Address: addr, Proto: proto})
		}
		return out
	}
	some := seen("some", "10.96.0.90:80/tcp", "192.0.2.1:80/tcp")
	every := seen("every", "10.96.0.90:80/tcp", "10.96.0.90:81/tcp", "10.96.0.91:80/udp")
	p := &api.Policy{
		Calls: []api.Calls{{Group: "some", VIP: "many", Counters: once}, {Group: "every", VIP: "many", Counters: once}, {Group: "before", VIP: "many", Counters: once}},
		Seen:  slices.Concat(some, every),
	}
	text, _ := suggestion(p, cfg)
	for group, want := range map[string]string{
		"some": `"10.96.0.90:80/tcp", "192.0.2.1:80/tcp",`, "every": `"many",`, "before": `"many",`,
	} {
		_, rule, _ := strings.Cut(text, "from = ["+strconv.Quote(group)+"]\nto = [")
		rule, _, _ = strings.Cut(rule, "]")
		if got := strings.Join(strings.Fields(rule), " "); got != want {
			t.Errorf("%s may call %s, want %s", group, got, want)
		}
	}
	for group, want := range map[string]int{"some": 1, "every": 3, "before": 3} {
		if list, _ := calledFrontends(seenCalls(p), cfg, group, "many"); len(list) != want {
			t.Errorf("%s is known to have called %v", group, list)
		}
	}
}

// The ports that a UDP server has answered to are one line, where they are many;
// those of something else, and of few, are as they were seen.
func TestSuggestionOfAnswers(t *testing.T) {
	var seen []api.Seen
	add := func(group, addr, proto string, ports ...int) {
		for _, port := range ports {
			seen = append(seen, api.Seen{Group: group, Address: netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port)).String(), Proto: proto})
		}
	}
	many := []int{32768, 40001, 40002, 40003, 40004, 40005, 40006, 65535}
	add("dns", "192.0.2.1", "udp", append(many, 53)...)
	add("dns", "192.0.2.2", "udp", many[1:]...)
	add("dns", "fd00::1", "udp", many...)
	add("web", "192.0.2.1", "tcp", many...)
	got := seenNetworks(seen)
	if want := []string{"192.0.2.1:32768-65535/udp", "192.0.2.1:53/udp"}; !slices.Equal(got["dns"][:2], want) {
		t.Errorf("to many ports: %q", got["dns"])
	}
	if len(got["dns"]) != 2+7+1 || !slices.Contains(got["dns"], "[fd00::1]:32768-65535/udp") || !slices.Contains(got["dns"], "192.0.2.2:40006/udp") {
		t.Errorf("to few ports, and by IPv6: %q", got["dns"])
	}
	if len(got["web"]) != len(many) {
		t.Errorf("over TCP: %q", got["web"])
	}
	text, _ := suggestion(&api.Policy{Seen: seen}, &config.Config{})
	if _, err := config.Parse("suggested", []byte("[group.web]\nslices = [\"web.slice\"]\n[group.dns]\nslices = [\"dns.slice\"]\n"+text)); err != nil {
		t.Errorf("%v:\n%s", err, text)
	}
}

// The kernel lists this process's connection with its peer and its cgroup, and
// not the accepted end.
func TestCurrentConnections(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	u, err := net.Dial("udp", "[::1]:9")
	if err != nil {
		t.Skip(err)
	}
	defer u.Close()
	// One that has ended on this side first is TIME_WAIT, and nobody's.
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	over, err := net.Dial("tcp", gone.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := gone.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(over.Close(), far.Close()); err != nil {
		t.Fatal(err)
	}
	list, err := currentConnections(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range list {
		if l.peer.String() == gone.Addr().String() {
			t.Errorf("a connection that has ended is listed: %+v", l)
		}
		for _, c := range []net.Conn{c, u} {
			if c.RemoteAddr().String() == l.peer.String() {
				got = append(got, l.proto.String())
			}
			if c.LocalAddr().String() == l.peer.String() {
				t.Errorf("the accepted end is listed: %+v", l)
			}
		}
	}
	if !slices.Contains(got, "tcp") || !slices.Contains(got, "udp") {
		t.Errorf("found %v", got)
	}
}

// What has a cgroup is asked about as the group that this is in then: nested ones, those
// that no group covers now, and connections to backends, too. What was counted may be of
// any of a group's cgroups.
func TestTrialGroups(t *testing.T) {
	const vips = `
[vip.db]
frontends = ["10.96.0.10:5432", "10.96.0.10:5432/udp"]
backend = [{ address = "192.0.2.11:5432" }]
[vip.keep]
frontends = ["10.96.0.11:80"]
backend = [{ address = "192.0.2.12:80" }]
`
	parse := func(groups string) *policied {
		cfg, err := config.Parse("a.toml", []byte(groups+vips))
		if err != nil {
			t.Fatal(err)
		}
		p, err := grouped(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	const web = "[group.web]\nslices = [\"web.slice\"]\nsplit = \"*.service\"\n"
	db, keep := netip.MustParseAddrPort("10.96.0.10:5432"), netip.MustParseAddrPort("10.96.0.11:80")
	tr := &trial{
		now: parse(web), seen: map[called]string{},
		next: parse(web + "[group.canary]\nslices = [\"web-canary.slice\"]\npolicy = \"deny\"\n[group.oth]\nslices = [\"other.slice\"]\npolicy = \"deny\"\n"),
	}
	tr.divide(t.TempDir())
	tr.counted("web", db, config.TCP, "counters")
	tr.counted("host", keep, config.TCP, "counters")
	tr.decided(&api.Decision{Group: "host", Cgroup: "/other.slice/x.service", Address: keep.String(), Protocol: "tcp"})
	tr.decided(&api.Decision{Group: "host", Cgroup: "…/x.service", Address: db.String(), Protocol: "tcp"})
	tr.decided(&api.Decision{Group: lb.DaemonGroup, Cgroup: "/other.slice/slicelb.service", Address: db.String(), Protocol: "tcp"})
	tr.decided(&api.Decision{Group: "web", Cgroup: "/web.slice", Protocol: "raw"})
	tr.connected([]connection{
		{"/web.slice/web-canary.slice/a.service", netip.MustParseAddrPort("192.0.2.11:5432"), config.UDP},
		{"/web.slice/b.service", netip.MustParseAddrPort("192.0.2.11:5432"), config.TCP},
		{"/other.slice", netip.MustParseAddrPort("192.0.2.9:9"), config.TCP},
	}, map[seenCall]bool{}, map[[2]string]bool{{"web", "db"}: true})
	want := []called{
		{"@daemon", "@daemon", false, db, config.TCP},
		{"host", "host", true, db, config.TCP},
		{"host", "oth", true, db, config.TCP},
		{"host", "host", true, keep, config.TCP},
		{"host", "oth", false, keep, config.TCP},
		{"host", "oth", false, netip.MustParseAddrPort("192.0.2.9:9"), config.TCP},
		{"web", "canary", true, db, config.TCP},
		{"web", "canary", false, db, config.UDP},
		{"web", "web", false, db, config.TCP},
	}
	var changes []string
	for _, r := range tr.judge(false) {
		changes = append(changes, r.Group+" "+r.Then+" "+r.Address+" "+strconv.FormatBool(r.Maybe))
	}
	if len(tr.seen) != len(want) {
		t.Errorf("%d calls, want %d: %+v", len(tr.seen), len(want), tr.seen)
	}
	for _, c := range want {
		if _, ok := tr.seen[c]; !ok {
			t.Errorf("not known: %+v", c)
		}
	}
	wantChanges := []string{
		"host oth 10.96.0.10:5432 true", "host oth 10.96.0.11:80 false",
		"web canary 10.96.0.10:5432 true", "web canary 10.96.0.10:5432/udp false",
	}
	if !slices.Equal(changes, wantChanges) {
		t.Errorf("changes %q, want %q", changes, wantChanges)
	}
}
