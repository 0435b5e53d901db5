package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	heading      = regexp.MustCompile(`(?m)^## (.*)$`)
	consoleBlock = regexp.MustCompile("(?ms)^```console\n(.*?)^```$")
	prompt       = regexp.MustCompile(`(?m)^# `)
)

// A new user with docs/install.md and a package: four commands to a working
// VIP, and every other command of the page does what it is there for.
func TestInstallPage(t *testing.T) {
	h := bare(t, "apt", "curl", "busybox", "ip")
	first, _ := packed(t, "v1.0.0")
	next, _ := packed(t, "v1.1.0")
	text, err := os.ReadFile("../../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	// The page's servers, and a network that has nobody at the VIP.
	h.must("ip", "address", "add", "192.0.2.11/32", "dev", "lo")
	h.must("ip", "address", "add", "192.0.2.12/32", "dev", "lo")
	if err := h.WriteFile("/srv/www/index.html", []byte(page+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.service("page-www", "busybox", "httpd", "-f", "-p", "8080", "-h", "/srv/www")
	h.put(first, "/root/slicelb_first.deb")

	// outputs of a section's commands, in order
	section := func(name string) (outputs []string) {
		t.Helper()
		for _, part := range sections(string(text)) {
			if !strings.HasPrefix(part, name+"\n") {
				continue
			}
			for _, block := range consoleBlock.FindAllStringSubmatch(part, -1) {
				for _, command := range prompt.Split(block[1], -1)[1:] {
					out := h.must("sh", "-c", "cd /root && "+command)
					outputs = append(outputs, out)
				}
			}
			return outputs
		}
		t.Fatalf("no section %q", name)
		return nil
	}
	outputs := section("From the package to a VIP")
	if len(outputs) < 4 || outputs[3] != page {
		t.Errorf("the fourth command does not get the page: %q", outputs)
	}
	if last := outputs[len(outputs)-1]; !strings.Contains(last, "one of 2 backends of VIP www") {
		t.Errorf("explain says\n%s", last)
	}
	if code, out := h.exit("curl", "--silent", "--show-error", "--max-time", "5", "http://10.96.0.80/"); code == 0 {
		t.Errorf("a caller outside the slice gets %q", out)
	}

	section("Putting workloads into slices")
	if got := h.must("systemctl", "show", "--property=After", "--value", "web.slice"); !strings.Contains(got, unit) {
		t.Errorf("web.slice is after %q", got)
	}

	before := h.property("MainPID")
	h.must("rm", "/root/slicelb_first.deb")
	h.put(next, "/root/slicelb_next.deb")
	// It goes from the upgrade to the purge.
	section("Upgrade, downgrade, stop, remove")
	if h.property("MainPID") == before {
		t.Error("the upgrade did not restart the service")
	}
	if got := h.must("ls", "/etc/slicelb", "/etc/slicelb/conf.d"); !strings.Contains(got, "www.toml") || strings.Contains(got, "slicelb.toml") {
		t.Errorf("purged, and left is\n%s", got)
	}
	h.must("getent", "passwd", "slicelb")
}

// sections are a page's texts, each from its heading on.
func sections(text string) []string {
	var all []string
	at := heading.FindAllStringSubmatchIndex(text, -1)
	for i, m := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		all = append(all, text[m[2]:end])
	}
	return all
}

// The shipped examples: systemd takes the units, slicelb the configurations,
// and Nomad's tasks are found by name in the cgroups that Nomad makes.
func TestShippedExamples(t *testing.T) {
	h := install(t)
	h.echo()
	const examples = "../../packaging/examples/"
	configs := map[string]string{}
	err := filepath.WalkDir(examples, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, examples)
		switch filepath.Ext(name) {
		case ".toml":
			configs[filepath.Base(name)] = string(text)
			h.configure(string(text))
			if code, out := h.exit("slicelb", "check"); code != 0 || strings.Contains(out, "warning") {
				t.Errorf("%s: exit %d\n%s", name, code, out)
			}
		case ".service", ".slice":
			if err := h.WriteFile("/etc/systemd/system/"+name, text, 0o644); err != nil {
				t.Fatal(err)
			}
			if code, out := h.exit("systemd-analyze", "verify", "--man=no", name); code != 0 || strings.Contains(out, name) {
				t.Errorf("%s: exit %d\n%s", name, code, out)
			}
			h.must("rm", "/etc/systemd/system/"+name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	// With the tests' VIP and backends in place of the example's.
	local := strings.NewReplacer(`["10.96.0.10:5432"]`, `["`+vip+`", "`+vip+`/udp"]`,
		`"192.0.2.11:5432"`, `"127.0.0.1:7001"`, `"192.0.2.12:5432"`, `"127.0.0.1:7002"`)
	h.configure(local.Replace(configs["nomad.toml"]))
	h.start()
	h.healthy()
	for cgroup, reached := range map[string]bool{
		"/nomad.slice/share.slice/7c3f.web.scope":   true,
		"/nomad.slice/reserve.slice/91aa.web.scope": true,
		"/nomad.slice/share.slice/7c3f.db.scope":    false,
		"/other.slice":                              false,
	} {
		got := h.ask(cgroup)
		if (strings.Trim(got, "0127.: ") == "") != reached {
			t.Errorf("from %s: %s", cgroup, got)
		}
	}
}

// Every command of docs/operations.md works while all is well.
func TestOperationsPage(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	h.ask("/web.slice/one.scope") // makes the slice
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, block := range consoleBlock.FindAllStringSubmatch(string(text), -1) {
		for _, command := range prompt.Split(block[1], -1)[1:] {
			ran++
			command = strings.ReplaceAll(command, "slicelb doctor", "slicelb doctor --cgroup-root /sys/fs/cgroup") // the lab's
			if code, out := h.exit("sh", "-c", command); code != 0 {
				t.Errorf("%sexit %d\n%s", command, code, out)
			}
		}
	}
	if ran == 0 {
		t.Error("no commands found")
	}
}
