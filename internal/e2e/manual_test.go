package e2e

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/lab"
)

// manualTOML has what the examples of the manual's pages speak of.
const manualTOML = `[group.web]
slices = ["web.slice"]

[group.jobs]
slices = ["jobs.slice"]
split = "*.scope"

[vip.db]
frontends = ["10.96.0.10:5432"]
[[vip.db.backend]]
address = "192.0.2.11:5432"
[[vip.db.backend]]
unit = "postgres@*.service"
address = "127.0.0.1:%i"

[vip.dns]
frontends = ["[fd00:96::10]:53/udp"]
[[vip.dns.backend]]
address = "[2001:db8::53]:53"

[[policy.rule]]
from = ["any"]
to = ["db"]
action = "audit"
`

// What is done in a lab in the place of what stands on a page: what goes on until it
// is interrupted is interrupted, and the visible cgroup root is not the hierarchy's.
var inPlace = strings.NewReplacer(
	"sudo slicelb doctor", "slicelb doctor --cgroup-root "+lab.CgroupRoot,
	"slicelb observe -f --vip db", "timeout 2 slicelb observe -f --vip db || test $? = 124",
	"slicelb observe -f -o json", "(timeout 2 slicelb observe -f -o json || test $? = 124)",
	"slicelb serve ", "systemctl stop slicelb; (timeout 5 slicelb serve --cgroup-root "+lab.CgroupRoot+" ",
	"/tmp/slicelb.sock", "/tmp/slicelb.sock || test $? = 124); systemctl start slicelb; until slicelb status; do sleep 0.1; done",
	"-n 10 -d 5s", "-n 2 -d 1s",
	"/usr/bin/web", "/bin/sleep infinity",
	"journalctl ", "journalctl --no-pager ",
)

// Every example of every page of the manual is run, and ends well.
func TestManualExamples(t *testing.T) {
	h := install(t)
	for _, tool := range []string{"jq", "bash", "timeout"} {
		h.needs(tool)
	}
	h.configure(manualTOML)
	h.start()
	for path, text := range map[string]string{
		"/root/slicelb.toml": manualTOML, "/root/new.toml": manualTOML,
		"/etc/systemd/system/web@.service":      "[Service]\nSlice=web.slice\nExecStart=/bin/sleep infinity\n",
		"/etc/systemd/system/postgres@.service": "[Service]\nExecStart=/bin/sleep infinity\n",
	} {
		if err := h.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.must("systemctl", "daemon-reload")
	h.must("systemctl", "start", "web@1.service", "postgres@5432.service")
	h.must("mkdir", "-p", lab.CgroupRoot+"/jobs.slice/build-17.scope", "/etc/slicelb/conf.d")
	t.Cleanup(func() {
		h.Run(context.Background(), "sh", "-c", "systemctl stop web@1.service postgres@5432.service web1.service; rm -rf /etc/slicelb/conf.d "+
			"/etc/systemd/system/web@.service /etc/systemd/system/postgres@.service; systemctl daemon-reload; "+
			"ip route del unreachable 10.96.0.0/16; rmdir "+lab.CgroupRoot+"/jobs.slice/build-17.scope")
	})
	h.eventually(10*time.Second, "what the examples speak of is there", func() bool {
		code, _ := h.exit("slicelb", "group", "show", "jobs/build-17.scope")
		_, backends := h.exit("slicelb", "backend", "list")
		return code == 0 && strings.Contains(backends, "127.0.0.1:5432")
	})
	h.exit("systemd-run", "--quiet", "--pipe", "--slice=web.slice", "busybox", "nc", "-w", "1", "10.96.0.10", "5432") // a call
	pid := h.must("systemctl", "show", "--property=MainPID", "--value", "web@1.service")

	h.must("sh", "-c", "mkdir -p /root/man && slicelb man /root/man")
	pages, err := filepath.Glob(filepath.Join(h.Root(), "root/man/*.8"))
	if err != nil || len(pages) < 20 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	ran := 0
	for _, page := range append(pages, "../../packaging/man/slicelb.8") {
		for _, example := range manualExamples(t, page) {
			ran++
			if example == "slicelb top" {
				continue // it wants a terminal, and has one in cmd/slicelb's tests
			}
			command := inPlace.Replace(strings.ReplaceAll(example, "4711", pid))
			if code, out := h.exit("timeout", "--kill-after=1", "60", "bash", "-c", "set -eo pipefail; cd /root; "+command); code != 0 {
				t.Errorf("%s: %s: exit %d\n%s", filepath.Base(page), example, code, out)
			}
		}
	}
	if ran < 40 {
		t.Errorf("%d examples found", ran)
	}
}

var (
	manualBlock = regexp.MustCompile(`(?ms)^\.Bd -literal -offset indent\n(.*?)^\.Ed$`)
	manualLine  = regexp.MustCompile(`(?m)^\.Dl (.*)$`)
)

// manualExamples are the commands that a page shows, by themselves on a line.
func manualExamples(t *testing.T, page string) (commands []string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.NewReplacer(`\-`, "-", `\(aq`, "'", `\e`, `\`, `\&`, "")
	take := func(line string) {
		if strings.HasPrefix(line, "-+") {
			return // of a unit: packaging/examples/drain.conf has it, and a test of its own
		}
		commands = append(commands, plain.Replace(line))
	}
	_, examples, _ := strings.Cut(string(text), ".Sh EXAMPLES\n")
	for _, m := range manualBlock.FindAllStringSubmatch(examples, -1) {
		for line := range strings.Lines(m[1]) {
			take(strings.TrimSuffix(line, "\n"))
		}
	}
	for _, m := range manualLine.FindAllStringSubmatch(string(text), -1) {
		take(m[1])
	}
	return commands
}
