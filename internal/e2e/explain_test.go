package e2e

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
)

// explanation is what slicelb explain says, as a person and as a program reads it.
func (h *host) explanation(args ...string) (text string, x api.Explanation) {
	h.t.Helper()
	args = append([]string{"explain", vip}, args...)
	text = h.must("slicelb", args...)
	if err := json.Unmarshal([]byte(h.must("slicelb", append(args, "-o", "json")...)), &x); err != nil {
		h.t.Fatal(err)
	}
	return text, x
}

// A caller is explained by process, unit and cgroup, whether a group covers it or not,
// and a process whose cgroup is gone too: it belongs to what is left above.
func TestExplainCallers(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	h.must("systemd-run", "--quiet", "--collect", "--unit=uncovered.service", "sleep", "infinity")
	t.Cleanup(func() { h.Run(context.Background(), "systemctl", "stop", "uncovered.service") })
	pid := h.must("systemctl", "show", "--property=MainPID", "--value", "uncovered.service")
	for _, args := range [][]string{{"--pid", pid}, {"--unit", "uncovered.service"}, {"--cgroup", "/system.slice/uncovered.service"}, {"--cgroup", "/system.slice"}} {
		text, x := h.explanation(args...)
		if x.Group != "host" || x.Decided != "" || x.Gone || !strings.Contains(text, "no group covers it") {
			t.Errorf("%v: group %q by %q\n%s", args, x.Group, x.Decided, text)
		}
		for i, a := range x.Ancestors {
			if a.ID == 0 || a.Decides || i > 0 && !strings.HasPrefix(x.Ancestors[i-1].Path, a.Path) {
				t.Errorf("%v: ancestors %+v", args, x.Ancestors)
			}
		}
	}

	// The backends are on the host's loopback, which is not that of everybody.
	for _, private := range []string{"no", "yes"} {
		unit := "private-" + private + ".service"
		h.must("systemd-run", "--quiet", "--collect", "--unit="+unit, "--slice=web.slice", "--property=PrivateNetwork="+private, "sleep", "infinity")
		t.Cleanup(func() { h.Run(context.Background(), "systemctl", "stop", unit) })
		pid := h.must("systemctl", "show", "--property=MainPID", "--value", unit)
		var text string
		h.eventually(10*time.Second, "it is told, or not", func() bool { // systemd's child makes its namespace after the fork
			text, _ = h.explanation("--pid", pid)
			return strings.Contains(text, "another network namespace") == (private == "yes")
		})
	}

	// A process that has ended and that nobody has asked for is in a cgroup that can be
	// removed. Its parent is one that never asks.
	for _, test := range []struct{ slice, group, decided string }{
		{"web.slice", "web", "/web.slice"},
		{"other.slice", "host", ""},
	} {
		dir := "/sys/fs/cgroup/" + test.slice + "/ended.scope"
		h.must("mkdir", "-p", dir)
		parent := h.Command(context.Background(), "sh", "-c", `sh -c 'echo $$ >'`+dir+`'/cgroup.procs; echo $$' & exec sleep infinity`)
		out := &watched{grown: make(chan struct{}, 1)}
		parent.Stdout = out
		if err := parent.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { parent.Process.Kill(); parent.Wait() })
		h.eventually(10*time.Second, "it has ended, and its cgroup is removed", func() bool {
			if out.last() == "" {
				return false
			}
			code, _ := h.exit("rmdir", dir)
			return code == 0
		})
		text, x := h.explanation("--pid", out.last())
		if !x.Gone || x.Group != test.group || x.Decided != test.decided || !strings.Contains(text, "this cgroup is gone") {
			t.Errorf("in %s: gone %v, group %q by %q\n%s", test.slice, x.Gone, x.Group, x.Decided, text)
		}
		if x.Cgroup != "/"+test.slice+"/ended.scope" || x.Ancestors[0].ID != 0 || x.Ancestors[1].ID == 0 {
			t.Errorf("in %s: %+v", test.slice, x.Ancestors)
		}
	}
	h.must("rmdir", "/sys/fs/cgroup/other.slice")
}
