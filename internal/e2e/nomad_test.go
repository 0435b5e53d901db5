package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nomadVar names a Nomad agent, a program that no distribution has as a
// package: without it its cgroups are made by hand, in TestGuidesByShape.
const nomadVar = "SLICELB_TEST_NOMAD"

// The job of docs/nomad.md with the real agent: the kernel has the task's
// scope in the group in the moment that Nomad makes it, and its calls go to a
// backend.
func TestNomad(t *testing.T) {
	agent := os.Getenv(nomadVar)
	if agent == "" {
		t.Skip(nomadVar + " names no agent")
	}
	h := install(t)
	h.echo()
	h.configure(local.Replace(firstConfiguration(t, "../../docs/nomad.md")))
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
	h.must("nomad", "job", "run", "-detach", "/root/web.nomad.hcl")
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
	// Where the controllers are v1's, Nomad leaves the task in its own cgroup.
	procs := ""
	for deadline := time.Now().Add(10 * time.Second); procs == "" && time.Now().Before(deadline); <-time.Tick(100 * time.Millisecond) {
		procs = h.must("cat", "/sys/fs/cgroup"+scope+"/cgroup.procs")
	}
	if procs == "" {
		t.Logf("%s is mapped, and empty: the controllers of this host are v1's", scope)
		return
	}
	h.eventually(time.Minute, "the task's calls reach a backend", func() bool {
		s := h.status()
		return s != nil && len(s.VIPs) == 1 && s.VIPs[0].Counters.Connects > 2
	})
}
