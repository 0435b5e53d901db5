package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
)

// nomadVar names a Nomad agent, a program that no distribution has as a
// package: without it its cgroups are made by hand, in TestGuidesByShape.
const nomadVar = "SLICELB_TEST_NOMAD"

// The job of docs/nomad.md with the real agent: its calls go to a backend, by the
// group of the scope that Nomad makes for the task, or of Nomad's unit where the
// host's controllers are v1's and it makes none.
func TestNomad(t *testing.T) {
	agent := os.Getenv(nomadVar)
	if agent == "" {
		t.Skip(nomadVar + " names no agent")
	}
	h := install(t)
	h.echo()
	toml := local.Replace(firstConfiguration(t, "../../docs/nomad.md"))
	h.configure(toml)
	h.start()
	h.healthy()
	h.put(agent, "/usr/local/bin/nomad")
	// The guide's job, with a program that is here in the place of psql.
	job, err := os.ReadFile("../../packaging/examples/nomad/web.nomad.hcl")
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nexport " + roleVar + "=load\nwhile sleep 1; do " + actor + " " + vip + " 1 " + strings.Join(oldOnes, " ") + " </dev/null; done\n"
	if err := h.WriteFile("/usr/local/bin/caller", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`"/usr/bin/psql"`, `"/usr/local/bin/caller"`, "count = 2", "count = 1").Replace(string(job))
	if text == string(job) {
		t.Fatal("the example is not understood any more")
	}
	for path, text := range map[string]string{
		"/root/web.nomad.hcl": text,
		// The smallest of the agent's own checks would want more than a lab has.
		"/root/agent.hcl": "client {\n  enabled = true\n  cpu_total_compute = 2000\n  memory_total_mb = 1024\n}\nplugin \"raw_exec\" {\n  config {\n    enabled = true\n  }\n}\n",
	} {
		if err := h.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.must("systemd-run", "--quiet", "--collect", "--unit=nomad", "--setenv=HOME=/root",
		"/usr/local/bin/nomad", "agent", "-dev", "-config=/root/agent.hcl")
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := h.Run(context.Background(), "journalctl", "--unit=nomad", "--output=cat", "--lines=40", "--no-pager")
			t.Log(out)
		}
		h.Run(context.Background(), "nomad", "job", "stop", "-purge", "-yes", "web")
		h.Run(context.Background(), "systemctl", "stop", "nomad")
	})
	h.eventually(2*time.Minute, "the node is ready", func() bool {
		code, out := h.exit("nomad", "node", "status")
		return code == 0 && strings.Contains(out, " ready")
	})
	// Where controllers are v1's, as beside a hybrid hierarchy, Nomad makes no
	// cgroup2 directories at all: its tasks are in its own unit's cgroup.
	const version = "os.cgroups.version"
	attributes := h.must("nomad", "node", "status", "-self", "-verbose")
	v2 := slices.ContainsFunc(strings.Split(attributes, "\n"), func(line string) bool {
		f := strings.Fields(line)
		return len(f) == 3 && f[0] == version && f[2] == "2"
	})
	h.must("nomad", "job", "run", "-detach", "/root/web.nomad.hcl")
	group := "nomad-web"
	if v2 {
		var scope string
		h.eventually(2*time.Minute, "the task's scope", func() bool {
			found, _ := filepath.Glob(filepath.Join(h.CgroupDir(), "nomad.slice/*/*.web.scope"))
			if len(found) == 1 {
				scope = strings.TrimPrefix(found[0], h.CgroupDir())
			}
			return scope != ""
		})
		if got := h.must("slicelb", "explain", vip, "--cgroup", scope); !strings.Contains(got, "nomad-web") {
			t.Errorf("explain says of %s:\n%s", scope, got)
		}
	} else {
		t.Logf("Nomad finds no controllers of cgroup2 here: its tasks are in its unit's cgroup")
		group = "nomad-agent"
		h.configure(strings.Replace(toml, "[vip.db]", "[group.nomad-agent]\nslices = [\"/system.slice/nomad.service\"]\n\n[vip.db]", 1))
		h.configure(strings.Replace(h.must("cat", config)+"\n", `clients = ["nomad-web"`, `clients = ["nomad-agent", "nomad-web"`, 1))
		h.must("systemctl", "reload", unit)
	}
	h.eventually(2*time.Minute, "the task's calls reach a backend", func() bool {
		for _, c := range h.callsTo("db") {
			if c.Group == group && c.Counters.Connects > 2 {
				t.Logf("%s: %+v", c.Group, c.Counters)
				return true
			}
		}
		return false
	})
}

// callsTo is what each group's calls to a VIP came to.
func (h *host) callsTo(name string) (out []api.Calls) {
	h.t.Helper()
	var p api.Policy
	if err := json.Unmarshal([]byte(h.must("slicelb", "policy", "list", "-o", "json")), &p); err != nil {
		h.t.Fatal(err)
	}
	for _, c := range p.Calls {
		if c.VIP == name {
			out = append(out, c)
		}
	}
	return out
}
