package daemon

import (
	"strings"
	"testing"

	"github.com/slicelb/slicelb/bpf"
)

// Where Maglev leads a caller is said with what it goes by, and that it is not known
// where it is not. That it is so, internal/live shows on the kernel.
func TestExplainLead(t *testing.T) {
	const toml = `
[group.web]
slices = ["web.slice"]
[group.jobs]
slices = ["jobs.slice"]
split = "*.scope"
[vip.shop]
frontends = ["10.96.0.40:80", "10.96.0.40:80/udp"]
algorithm = "maglev"
backend = [ { address = "192.0.2.1:80", weight = 20 }, { address = "192.0.2.2:80", weight = 10 } ]
[vip.kept]
frontends = ["10.96.0.41:80"]
algorithm = "maglev"
affinity = "1m"
backend = [ { address = "192.0.2.1:80" }, { address = "192.0.2.2:80" } ]
`
	d, err := filled(t, toml, map[uint64]string{10: "web.slice", 11: "jobs.slice"}).Dump()
	if err != nil {
		t.Fatal(err)
	}
	d.Cgroups[12] = bpf.Rule{Group: d.Cgroups[11].Group, Split: true}
	web := []ancestor{{"/web.slice", 10}, {"/", 1}}
	child := []ancestor{{"/jobs.slice/a.scope/deeper", 13}, {"/jobs.slice/a.scope", 12}, {"/jobs.slice", 11}, {"/", 1}}
	const unknown = "not known here"
	for _, test := range []struct {
		name, address string
		line          []ancestor
		elsewhere     bool
		look, found   string // of a step
		reason        string
	}{
		{"a group", "10.96.0.40:80", web, false, "group web", "its name leads to 192.0.2.", "the one that its group leads to: 192.0.2."},
		{"the host", "10.96.0.40:80", []ancestor{{"/", 1}}, false, "group host", "its name leads to 192.0.2.", "leads to: 192.0.2."},
		{"a split child", "10.96.0.40:80", child, false, "cgroup /jobs.slice/a.scope", "its id leads to 192.0.2.", "leads to: 192.0.2."},
		{"udp", "10.96.0.40:80/udp", web, false, "group web", "its name leads to 192.0.2.", "; a socket that is not connected keeps the one that it has"},
		{"another network namespace", "10.96.0.40:80", web, true, "group web", "its name leads to 192.0.2.", "leads to: 192.0.2."},
		{"affinity", "10.96.0.41:80", web, false, "group web", "its name and the daemon's network namespace lead to 192.0.2.", ", unless it keeps another that it has called in the last 1m0s"},
		{"affinity elsewhere", "10.96.0.41:80", web, true, "group web", unknown, "lead to, which is not known here; kept until 1m0s pass without a call"},
	} {
		t.Run(test.name, func(t *testing.T) {
			key, err := parseFrontend(test.address)
			if err != nil {
				t.Fatal(err)
			}
			c := callerOf(d, test.line, 0, nil)
			c.elsewhere = test.elsewhere
			x := explain(d, &bpf.CounterSnapshot{}, key, c)
			last := x.Steps[len(x.Steps)-1]
			if x.Action != "balance" || !strings.Contains(x.Reason, test.reason) || last.Look != test.look || !strings.Contains(last.Found, test.found) {
				t.Errorf("%s: %s\n%+v", x.Action, x.Reason, x.Steps)
			}
			if known := test.found != unknown; known != (x.Chosen != "") {
				t.Errorf("chosen %q", x.Chosen)
			}
		})
	}
}
