package daemon

import (
	"strings"
	"testing"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/lb"
)

// A backend that is out and has calls all the same has them by its VIP's word, or
// because the kernel is behind: nobody is told the one for the other.
func TestKernelIsBehind(t *testing.T) {
	d := &daemon{running: sourceOf(t, twoVIPs)}
	v, e := d.running.vip("db"), endpointOf("db", "192.0.2.1:80")
	for _, tt := range []struct {
		name    string
		verdict *lb.Verdict // that the kernel has
		want    string
	}{
		{"nothing of this process's", nil, "the kernel does not have this yet"},
		{"what was before", &lb.Verdict{}, "the kernel does not have this yet"},
		{"the order", &lb.Verdict{Down: true}, "in use all the same, by when_down"},
	} {
		c := &counted{
			source: d.running, orders: map[lb.Endpoint]order{e: {State: api.OrderMaint}},
			state: map[backendKey]bpf.BackendState{{e.VIP, e.Addr}: bpf.BackendActive}, share: map[shareKey]float64{{vip: e.VIP, addr: e.Addr}: 0.5},
		}
		if tt.verdict != nil {
			var err error
			if c.kernel, err = lb.Compile(d.running.cfg, d.running.tree, lb.Membership{}, lb.Runtime{Verdicts: map[lb.Endpoint]lb.Verdict{e: *tt.verdict}}); err != nil {
				t.Fatal(err)
			}
		}
		if got := c.backends(v, "", v.Backends)[0].Reason; !strings.HasSuffix(got, "; "+tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// How backends are checked is said with everything that decides.
func TestHealthText(t *testing.T) {
	for toml, want := range map[string]string{
		"": "tcp every 2s, timeout 1s, fall 3, rise 2, initial down, panic_threshold 100",
		"type = \"http\"\npath = \"/ok\"\ninitial = \"up\"\npanic_threshold = 50\nslow_start = \"30s\"\npassive = true\n": "http /ok every 2s, timeout 1s, fall 3, rise 2, initial up, panic_threshold 50, slow_start 30s, passive",
	} {
		if got := healthText(parse(t, checkedVIP+toml).cfg.VIPs[0].Health); got != want {
			t.Errorf("%q\nwant %q", got, want)
		}
	}
	if got := healthText(nil); got != "" {
		t.Errorf("no checks: %q", got)
	}
}

// What the daemon itself calls is nobody's: no group of that name was ever configured.
func TestDaemonIsNoGroup(t *testing.T) {
	c := &counted{calls: map[pair]api.Counters{{"db", "web"}: {Connects: 1}, {"db", lb.DaemonGroup}: {Passed: 2}, {"", "web"}: {Denied: 3}}}
	if top := topGroups(c); len(top) != 2 || top[0].Group != "web" || top[0].VIP != "" || top[1].Counters.Connects != 1 {
		t.Errorf("%+v", top)
	}
}
