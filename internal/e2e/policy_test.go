package e2e

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/lab"
)

// policyTOML has three groups: web may, jobs is denied by default and strict, and
// poor has what the rules say. Every backend is in a network that is denied, and
// is checked.
const policyTOML = `[daemon]
http = "127.0.0.1:9781"

[group.web]
slices = ["web.slice"]

[group.jobs]
slices = ["jobs.slice"]
policy = "deny"
strict = true

[group.poor]
slices = ["poor.slice"]

[vip.db]
frontends = ["10.96.0.10:7000", "10.96.0.10:7000/udp"]
backend = [{ address = "127.0.0.1:7001" }, { address = "127.0.0.1:7002" }]

[vip.db.health]
type = "tcp"
interval = "200ms"
timeout = "100ms"

[vip.other]
frontends = ["10.96.0.11:7000"]
backend = [{ address = "127.0.0.1:7003" }]
`

const (
	other = "10.96.0.11:7000"
	// What the groups may is the same by both; the rules, their number and their
	// order are not.
	rulesA = `
[policy]
default = "allow"

[[policy.rule]]
from = ["web"]
to = ["db"]
action = "allow"

[[policy.rule]]
from = ["jobs"]
to = ["127.0.0.1:7003/tcp"]
action = "allow"

[[policy.rule]]
from = ["any"]
to = ["db+backends", "127.0.0.0/8:7000-7099"]
action = "deny"
`
	rulesB = `
[policy]
default = "allow"

[[policy.rule]]
from = ["jobs"]
to = ["127.0.0.0/29:7003/tcp"]
action = "allow"

[[policy.rule]]
from = ["poor", "host", "jobs"]
to = ["10.96.0.10"]
action = "deny"

[[policy.rule]]
from = ["any"]
to = ["127.0.0.0/9:7001-7009", "127.0.0.0/16:7003"]
action = "deny"

[[policy.rule]]
from = ["any"]
to = ["10.0.0.0/8:7999", "[fd00::/8]:7000"]
action = "audit"
`
)

// What the rules say is what the kernel does, under the unit as it is shipped:
// denied is EPERM, in observe, in the journal and in the metrics; health checks
// are not asked about; and while the rules change, no call meets half of them.
// edge D32
func TestPolicy(t *testing.T) {
	h := install(t)
	h.needs("curl")
	h.echo()
	h.configure(policyTOML + rulesA)
	h.start()
	h.healthy()
	began := h.must("date", "+%Y-%m-%d %H:%M:%S")
	const backend = "127.0.0.1:7001"
	checkCalls := func() {
		t.Helper()
		h.dials("/web.slice/a.service", map[string]string{
			"tcp " + vip: "ok", "udp " + vip: "ok", "sendto " + vip: "ok",
			"tcp " + backend: "EPERM", "udp " + backend: "EPERM", "sendto " + backend: "EPERM",
			"tcp 127.0.0.1:7003": "EPERM", "tcp " + other: "ok", "raw " + vip: "ok",
		})
		h.dials("/poor.slice/a.service", map[string]string{
			"tcp " + vip: "EPERM", "udp " + vip: "EPERM", "sendto " + vip: "EPERM", "tcp " + backend: "EPERM", "tcp " + other: "ok",
		})
		h.dials("/elsewhere.slice", map[string]string{"tcp " + vip: "EPERM", "tcp " + other: "ok", "udplite " + vip: "ok"})
	}
	checkCalls()
	// Denied by default: the VIP that no rule names. Strict: sockets without hooks.
	h.dials("/jobs.slice/a.service", map[string]string{
		"tcp " + vip: "EPERM", "tcp " + other: "EPERM", "tcp 127.0.0.1:7003": "ok", "sendto 127.0.0.1:7003": "EPERM",
		"raw " + vip: "EPERM", "udplite " + vip: "EPERM",
	})

	// The same, told by whoever tells it.
	seen := 0
	for line := range strings.Lines(h.must("slicelb", "observe", "--verdict", "denied", "--group", "poor", "--vip", "db", "-o", "jsonl")) {
		var o api.Observed
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		if d := o.Decision; d != nil {
			seen++
			if d.Group != "poor" || d.VIP != "db" || d.Address != vip && d.Address != vip+"/udp" || d.Rule != 3 || d.Unit != "a.service" || d.PID == 0 {
				t.Errorf("observe: %+v", d)
			}
		}
	}
	if seen != 3 {
		t.Errorf("%d of 3 denied calls to the VIP are told", seen)
	}
	for _, kind := range []string{"raw", "udplite"} {
		if out := h.must("slicelb", "observe", "--verdict", "denied", "--group", "jobs", "--no-headers"); !regexp.MustCompile(`(?m)denied \(strict\) +jobs +- +` + kind + ` +- +- +a.service `).MatchString(out) {
			t.Errorf("a %s socket that a strict group is refused is not told:\n%s", kind, out)
		}
		if !slices.ContainsFunc(h.entries("--since", began, "SLICELB_EVENT=denied", "SLICELB_GROUP=jobs"), func(e map[string]any) bool {
			text, _ := e["MESSAGE"].(string)
			return strings.Contains(text, "reason=strict") && strings.Contains(text, "address="+kind+" ")
		}) {
			t.Errorf("a %s socket that a strict group is refused is not in the journal", kind)
		}
	}
	events := 0
	for _, e := range h.entries("--since", began, "SLICELB_VIP=db", "SLICELB_GROUP=poor") {
		if e["SLICELB_EVENT"] != "denied" || e["MESSAGE_ID"] == "" || e["_SYSTEMD_UNIT"] != unit {
			t.Errorf("entry: %v", e)
		}
		events++
	}
	if events != 3 {
		t.Errorf("%d of 3 denials are in the journal", events)
	}
	text := h.must("curl", "--silent", "--show-error", "--fail", "http://127.0.0.1:9781/metrics")
	for _, want := range []string{
		`slicelb_group_calls_total{group="poor",verdict="denied",vip="db"} 3`,
		`slicelb_group_calls_total{group="jobs",verdict="denied",vip="other"} 1`,
		`slicelb_group_network_denied_total{group="poor"} 1`, `slicelb_group_network_denied_total{group="web"} 4`,
		`slicelb_policy_rule_calls_total{action="allow",rule="2"} 1`,
		`slicelb_vip_calls_total{verdict="denied",vip="db"} 5`,
		`slicelb_kernel_events_total{event="strict_refused"} 2`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no line %s in\n%s", want, text)
		}
	}
	if out := h.must("slicelb", "explain", vip, "--cgroup", "/poor.slice"); !strings.Contains(out, "rule 3, "+config) || !strings.Contains(out, "EPERM") {
		t.Errorf("explain says\n%s", out)
	}

	// Reloads between two policies that say the same of these calls.
	l := h.load(oldOnes...)
	poor := h.insist("/poor.slice/b.service", "tcp "+vip, "udp "+vip, "tcp "+other)
	jobs := h.insist("/jobs.slice/b.service", "tcp "+other, "tcp 127.0.0.1:7003", "udp 127.0.0.1:7003")
	for i := range 40 {
		h.configure(policyTOML + []string{rulesB, rulesA}[i%2])
		h.must("systemctl", "reload", unit)
		if i == 0 {
			checkCalls()
		}
	}
	for what, want := range map[string]string{"tcp " + vip: "EPERM", "udp " + vip: "EPERM", "tcp " + other: "ok"} {
		got := poor()[what]
		only(t, "poor: "+what, got, want)
	}
	for what, want := range map[string]string{"tcp " + other: "EPERM", "tcp 127.0.0.1:7003": "ok", "udp 127.0.0.1:7003": "EPERM"} {
		only(t, "jobs: "+what, jobs()[what], want)
	}
	l.flawless()

	// All of this time the daemon's own checks of what is denied went on.
	s := h.healthy()
	for _, v := range s.VIPs {
		for _, b := range v.Backends {
			if v.Name == "db" && (b.Check == nil || b.Check.State != "up" || b.Check.Count < 5 || b.Check.Run != int(b.Check.Count)) {
				t.Errorf("backend %s: %+v", b.Address, b.Check)
			}
		}
	}
}

// docs/policy.md's way from no policy to one that denies: audit, take what is
// suggested, see what it changes, deny the rest. Nothing that went on before is
// denied, and nothing else is allowed.
func TestPolicyPage(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(strings.Replace(policyTOML, "policy = \"deny\"\nstrict = true\n", "", 1))
	h.start()
	h.healthy()
	page := h.follow("../../docs/policy.md", append(inLab, "10.0.0.0/8", "127.0.0.0/8")...)
	t.Cleanup(func() { h.Run(context.Background(), "rm", "-rf", "/etc/slicelb/conf.d") })
	l := h.load(oldOnes...)
	page.section("From no policy to one that denies: watch")
	went := map[string]string{"tcp " + other: "ok", "tcp 127.0.0.1:7003": "ok", "sendto 127.0.0.1:7003": "ok", "udp 127.0.0.1:7002": "ok"}
	h.dials("/jobs.slice/a.service", went)
	l.more(200)

	// If all that calls a VIP were to be denied:
	h.write("/root/none/slicelb.toml", policyTOML+"\n[policy]\ndefault = \"deny\"\n")
	code, out := h.exit("slicelb", "--cgroup-root", lab.CgroupRoot, "policy", "try", "-c", "/root/none/slicelb.toml", "--no-headers")
	if code != 1 {
		t.Errorf("try: exit %d", code)
	}
	for _, want := range []string{"jobs " + other + " other audit deny default", "web " + vip + " db audit deny default", "web " + vip + "/udp db audit deny default"} {
		if !slices.ContainsFunc(strings.Split(out, "\n"), func(line string) bool {
			return strings.HasPrefix(strings.Join(strings.Fields(line), " "), want)
		}) {
			t.Errorf("try does not say %q:\n%s", want, out)
		}
	}

	// If the load were in a group that may call nothing: what is kept of it has its cgroup.
	h.write("/root/none/slicelb.toml", policyTOML+"\n[group.moved]\nslices = [\"/web.slice/load.scope\"]\npolicy = \"deny\"\n")
	h.eventually(10*time.Second, "what the load has called is known", func() bool {
		code, out = h.exit("slicelb", "--cgroup-root", lab.CgroupRoot, "policy", "try", "-c", "/root/none/slicelb.toml", "--no-headers")
		return code == 1 && strings.Contains(strings.Join(strings.Fields(out), " "), "web -> moved "+vip+" db audit deny default decision")
	})

	page.section("From no policy to one that denies: write down")
	suggested := h.must("cat", "/etc/slicelb/conf.d/60-policy.toml")
	for _, want := range []string{`from = ["jobs"]`, `"127.0.0.1:7002/udp"`, `"127.0.0.1:7003/tcp"`, `"127.0.0.1:7003/udp"`, `from = ["web"]`, `"db"`} {
		if !strings.Contains(suggested, want) {
			t.Errorf("%s is not suggested:\n%s", want, suggested)
		}
	}
	outputs := page.section("From no policy to one that denies: deny")
	for line := range strings.Lines(outputs[1]) {
		if f := strings.Fields(line); len(f) > 4 && f[len(f)-3] == "deny" {
			t.Errorf("try says that it would deny: %s", line)
		}
	}
	h.dials("/jobs.slice/a.service", went)
	l.more(500)
	if n := h.denied(); n != 0 {
		t.Errorf("%d calls of what was seen are denied:\n%s", n, h.must("slicelb", "observe", "--verdict", "denied"))
	}
	h.dials("/jobs.slice/a.service", map[string]string{"tcp " + vip: "EPERM", "tcp 127.0.0.1:7002": "EPERM", "udp 127.0.0.1:7001": "EPERM"})
	h.dials("/web.slice/a.service", map[string]string{"tcp " + other: "EPERM", "tcp 127.0.0.1:7003": "EPERM"})
	if n := h.denied(); n != 5 {
		t.Errorf("%d denials are counted, of 5", n)
	}
	l.flawless()
}

func (h *host) write(path, text string) {
	h.t.Helper()
	if err := h.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// denied is how many calls policy has denied.
func (h *host) denied() (n uint64) {
	h.t.Helper()
	h.eventually(callTimeout, "status", func() bool {
		s := h.status()
		if s != nil {
			n = s.Policy.Denied
		}
		return s != nil
	})
	return n
}
