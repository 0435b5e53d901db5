package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// filled are maps in memory that hold a configuration.
func filled(t testing.TB, toml string, cgroups map[uint64]string) *lbtest.Maps {
	t.Helper()
	cfg, err := config.Parse("test", []byte(toml))
	if err != nil {
		t.Fatal(err)
	}
	src, err := newSource(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := lb.Membership{Complete: true}
	for id, name := range cgroups {
		match, ok := src.tree.Child(src.tree.Root().Node, name)
		if ok {
			m.Cgroups = append(m.Cgroups, lb.Member{ID: id, Match: &match, Group: match.Group})
		}
	}
	state, err := lb.Compile(cfg, src.tree, m, lb.Runtime{})
	if err != nil {
		t.Fatal(err)
	}
	maps := lbtest.New(lbtest.DefaultLimits)
	rec := lb.NewReconciler(maps, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- rec.Run(ctx) }()
	if _, err := rec.Reconcile(ctx, state); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return maps
}

// explained is the configuration that diff's tests use, too.
func explained(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../config/testdata/situations.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestExplain(t *testing.T) {
	maps := filled(t, explained(t), map[uint64]string{10: "web.slice", 11: "canary.slice", 12: "proxy.slice", 13: "cache.slice"})
	d, err := maps.Dump()
	if err != nil {
		t.Fatal(err)
	}
	web := []ancestor{{"/web.slice/a.scope/container", 100}, {"/web.slice/a.scope", 99}, {"/web.slice", 10}, {"/", 1}}
	below := func(name string, id uint64) []ancestor {
		return []ancestor{{"/" + name + "/a.scope", 200}, {"/" + name, id}, {"/", 1}}
	}
	for _, test := range []struct {
		name, address string
		line          []ancestor
		want          []string // group, VIP, action, words of the reason
		backends      string
	}{
		{"weights", "10.96.0.10:5432", web, []string{"web", "db", "balance", "one of 2 backends"}, "192.0.2.11:5432 75%, 192.0.2.12:5432 25%"},
		{"udp is another frontend", "10.96.0.10:5432/udp", web, []string{"web", "db", "balance", ""}, "192.0.2.11:5432 75%, 192.0.2.12:5432 25%"},
		{"v4-mapped", "[::ffff:10.96.0.10]:5432", web, []string{"web", "db", "balance", ""}, "192.0.2.11:5432 75%, 192.0.2.12:5432 25%"},
		{"another port", "10.96.0.10:80", web, []string{"web", "", "pass", "no frontend"}, ""},
		{"another protocol", "10.96.0.11:80/udp", web, []string{"web", "", "pass", "no frontend"}, ""},
		{"a view", "10.96.0.10:5432", below("canary.slice", 11), []string{"canary", "db", "balance", "one of 1 backend "}, "192.0.2.20:5432 100%"},
		{"translate = false", "10.96.0.10:5432", below("proxy.slice", 12), []string{"proxy", "db", "pass", "translate = false"}, ""},
		{"hidden", "10.96.0.10:5432", below("cache.slice", 13), []string{"cache", "db", "reject", "not among the clients"}, ""},
		{"the host", "10.96.0.10:5432", below("system.slice", 14), []string{"host", "db", "reject", "not among the clients"}, ""},
		{"except", "10.96.0.53:53/udp", below("cache.slice", 13), []string{"cache", "dns", "pass", "except"}, ""},
		{"everybody", "10.96.0.53:53/udp", below("system.slice", 14), []string{"host", "dns", "balance", ""}, "192.0.2.53:53 100%"},
		{"no backend", "10.96.0.11:80", web, []string{"web", "down", "reject", "EHOSTUNREACH"}, ""},
		{"no backend, pass", "10.96.0.12:80", web, []string{"web", "gone", "pass", `when_down = "pass"`}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			key, err := parseFrontend(test.address)
			if err != nil {
				t.Fatal(err)
			}
			x := explain(d, &bpf.CounterSnapshot{}, key, callerOf(d, test.line, 0, nil))
			if !strings.Contains(x.Reason, test.want[3]) {
				t.Errorf("reason %q, want %q in it", x.Reason, test.want[3])
			}
			if diff := cmp.Diff(test.want[:3], []string{x.Group, x.VIP, x.Action}); diff != "" {
				t.Errorf("(-want +got):\n%s\n%+v", diff, x)
			}
			var parts []string
			for _, b := range x.Backends {
				parts = append(parts, fmt.Sprintf("%s %.0f%%", b.Address, 100*b.Share))
			}
			if got := strings.Join(parts, ", "); got != test.backends {
				t.Errorf("backends %s, want %s", got, test.backends)
			}
			// The programs' own look-up, as package lb's tests have it, agrees.
			var group uint32
			for _, a := range test.line {
				if r := d.Cgroups[a.id]; r.Group != 0 {
					group = r.Group
					break
				}
			}
			answer, err := maps.Resolve(group, key)
			if err != nil {
				t.Fatal(err)
			}
			if (answer.Action == bpf.Balance) != (x.Action == "balance") {
				t.Errorf("the programs: %s", answer)
			}
		})
	}
}

// A port that no frontend names, of a VIP that refuses those, meets the rules that name
// its address, no default: the programs end it with ECONNREFUSED before. No address at
// all is the loopback, where there is a policy.
func TestExplainByPolicy(t *testing.T) {
	const toml = `
[group.jobs]
slices = ["jobs.slice"]
policy = "deny"
[vip.shop]
frontends = ["10.96.0.40:80"]
reject_unknown_ports = true
[[vip.shop.backend]]
address = "127.0.0.1:8001"
`
	const loopback = "[policy]\n[[policy.rule]]\nfrom = [\"jobs\"]\nto = [\"127.0.0.1/32\", \"::1/128\"]\naction = \"deny\"\n"
	const rule = "[policy]\n[[policy.rule]]\nfrom = [\"jobs\"]\nto = [\"10.96.0.40/32\"]\naction = \"deny\"\n"
	line := []ancestor{{"/jobs.slice", 10}, {"/", 1}}
	for _, test := range []struct{ name, toml, address, action, reason string }{
		{"the default and a port that is", toml, "10.96.0.40:80", "deny", "default of jobs: EPERM"},
		{"the default and another port", toml, "10.96.0.40:81", "reject", "ECONNREFUSED"},
		{"a rule and another port", toml + rule, "10.96.0.40:81", "deny", "by rule 1: EPERM"},
		{"no address", toml + loopback, "0.0.0.0:81", "deny", "by rule 1: EPERM"},
		{"no address, IPv6", toml + loopback, "[::]:81/udp", "deny", "by rule 1: EPERM"},
		{"no address, v4-mapped", toml + loopback, "[::ffff:0.0.0.0]:81", "deny", "by rule 1: EPERM"},
		{"no address that is denied", toml + rule, "0.0.0.0:81", "pass", "no frontend"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, err := filled(t, test.toml, map[uint64]string{10: "jobs.slice"}).Dump()
			if err != nil {
				t.Fatal(err)
			}
			key, err := parseFrontend(test.address)
			if err != nil {
				t.Fatal(err)
			}
			c := callerOf(d, line, 0, nil)
			c.under(d, nil)
			if x := explain(d, &bpf.CounterSnapshot{}, key, c); x.Action != test.action || !strings.Contains(x.Reason, test.reason) {
				t.Errorf("%s: %s, want %s with %q", x.Action, x.Reason, test.action, test.reason)
			}
		})
	}
}

// What a strict group cannot do is part of what it gets.
func TestExplainStrict(t *testing.T) {
	d, err := filled(t, "[group.jobs]\nslices = [\"jobs.slice\"]\nstrict = true\n[group.web]\nslices = [\"web.slice\"]\n", map[uint64]string{10: "jobs.slice", 11: "web.slice"}).Dump()
	if err != nil {
		t.Fatal(err)
	}
	key, err := parseFrontend("192.0.2.1:80")
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[uint64]bool{10: true, 11: false} {
		x := explain(d, &bpf.CounterSnapshot{}, key, callerOf(d, []ancestor{{"/x.slice", id}, {"/", 1}}, 0, nil))
		if said := slices.ContainsFunc(x.Steps, func(s api.Step) bool { return strings.HasPrefix(s.Found, "strict = true") }); said != want {
			t.Errorf("group %s: %+v", x.Group, x.Steps)
		}
	}
}

func TestParseFrontend(t *testing.T) {
	for _, bad := range []string{"10.96.0.1:080", "[fd00::1]:00080/udp", "", "10.0.0.1", "10.0.0.1:", "10.0.0.1:x", "10.0.0.1:70000", "10.0.0.1:80/sctp", "10.0.0.1:80/", "fd00::1:80", "[fe80::1%eth0]:80", "db:80"} {
		if k, err := parseFrontend(bad); err == nil {
			t.Errorf("%q: %v", bad, k)
		}
	}
}

// fault F27
func FuzzParseFrontend(f *testing.F) {
	f.Add("10.96.0.10:5432/udp")
	f.Add("[::ffff:1.2.3.4]:1/tcp")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := parseFrontend(text)
		if err != nil {
			return
		}
		again, err := parseFrontend(frontendText(k))
		if err != nil || again != k {
			t.Errorf("%q is %v, which is %q, which is %v, %v", text, k, frontendText(k), again, err)
		}
	})
}

func TestDumpLines(t *testing.T) {
	maps := filled(t, explained(t), map[uint64]string{10: "web.slice"})
	d, err := maps.Dump()
	if err != nil {
		t.Fatal(err)
	}
	lines := dumpLines(d)
	for _, want := range []string{"put cgroup 10 ", "put frontend 10.96.0.10:5432/udp", `"canary.slice"`, "192.0.2.20:5432"} {
		if !strings.Contains(strings.Join(lines, "\n"), want) {
			t.Errorf("%q is missing:\n%s", want, strings.Join(lines, "\n"))
		}
	}
}
