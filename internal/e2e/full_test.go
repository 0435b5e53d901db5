package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
)

// many is n lines.
func many(n int, line func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(line(i))
	}
	return b.String()
}

// Of every table that a configuration can fill: one that takes more is refused whole, by
// check, by a reload and by a restart, with the table, its size and what found no room,
// while what is there serves on; a first start with one ends. The policy is one that is
// too large to be compiled at all. fault F14
func TestFullTables(t *testing.T) {
	h := install(t)
	h.units()
	h.must("systemctl", "start", "echo@7001")
	good := vipTOML("db", vip, "127.0.0.1:7001")
	h.configure(good)
	h.start()
	h.healthy()
	rules := many(4700, func(i int) string {
		return fmt.Sprintf("[group.g%d]\nslices = [\"g%d.slice\"]\n[[policy.rule]]\nfrom = [\"g%d\"]\nto = [\"10.0.0.0/8:%d-65535/tcp\"]\naction = \"deny\"\n", i, i, i, i+1)
	})
	for _, tt := range []struct{ table, key, more string }{
		{"frontends", "10.", many(6, func(v int) string {
			return fmt.Sprintf("[vip.v%d]\nreject_unknown_ports = true\nfrontends = [\n%s]\n", v, many(4096, func(i int) string {
				return fmt.Sprintf("\"10.%d.%d.%d:1\",\n", v, i>>8, i&255)
			}))
		})},
		{"cells", "vip v", many(8200, func(v int) string {
			at := fmt.Sprintf("%x:%x", v>>8+1, v&255+1)
			return fmt.Sprintf("[vip.v%d]\nfrontends = [\"10.1.%d.%d:1\", \"[fd00::%s]:1\"]\nfor.web.when_down = \"pass\"\n", v, v>>8, v&255, at)
		})},
		{"groups", "group ", many(16383, func(i int) string { return fmt.Sprintf("[group.g%d]\nslices = [\"g%d.slice\"]\n", i, i) })},
		{"expect", "node=", "[group.more]\nslices = [\n" + many(22_000, func(i int) string { return fmt.Sprintf("\"a%d-b-c.slice\",\n", i) }) + "]\n"},
		{"policy_lines", "4700 rules of [policy]", rules},
	} {
		full := "table " + tt.table + " has "
		found := func(what, text string) {
			t.Helper()
			if !strings.Contains(text, full) || !strings.Contains(text, "no room for "+tt.key) {
				t.Errorf("%s: %s: %.500s", tt.table, what, text)
			}
		}
		serves := func(when string) {
			t.Helper()
			if got := h.ask("/web.slice/ask.scope"); got != "127.0.0.1:7001" {
				t.Errorf("%s: %s a call gets %s", tt.table, when, got)
			}
		}
		h.configure(good + tt.more)
		if code, out := h.exit("slicelb", "check"); code != 78 || !strings.Contains(out, "does not fit: "+full) {
			t.Errorf("%s: check exits %d: %.500s", tt.table, code, out)
		} else {
			found("check", out)
		}
		if code, out := h.exit("slicelb", "reload"); code != 78 {
			t.Errorf("%s: reload exits %d", tt.table, code)
		} else {
			found("reload", out)
		}
		serves("after a reload")
		if s := h.status(); s == nil || len(s.VIPs) != 1 || s.Config.LastGood {
			t.Errorf("%s: after a reload: %+v", tt.table, s)
		}
		h.must("systemctl", "restart", unit)
		var s *api.Status
		h.eventually(30*time.Second, "the last good configuration", func() bool {
			s = h.status()
			return s != nil && s.Config.LastGood && len(s.VIPs) == 1
		})
		found("a restart", strings.Join(s.Problems, "\n"))
		serves("after a restart")
		h.configure(good)
		h.must("slicelb", "reload")
		h.healthy()
	}

	h.configure(good + rules)
	h.must("systemctl", "stop", unit)
	h.exit("systemctl", "start", unit)
	h.eventually(20*time.Second, "the unit has failed", func() bool { return h.property("ActiveState") == "failed" })
	if code := h.property("ExecMainStatus"); code != "78" {
		t.Errorf("a first start: exit %s", code)
	}
}
