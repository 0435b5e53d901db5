package e2e

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// www runs the web servers that the pages take as an example, on addresses
// that the lab has to itself.
func (h *host) www() {
	h.t.Helper()
	for _, addr := range []string{"192.0.2.11/32", "192.0.2.12/32"} {
		h.exit("ip", "address", "add", addr, "dev", "lo") // there already: a test before this one
	}
	if err := h.WriteFile("/srv/www/index.html", []byte(page+"\n"), 0o644); err != nil {
		h.t.Fatal(err)
	}
	h.service("page-www", "busybox", "httpd", "-f", "-p", "8080", "-h", "/srv/www")
	h.eventually(10*time.Second, "the web server listens", func() bool {
		return strings.Contains(h.must("ss", "-Hlnt"), ":8080 ")
	})
}

// A new user with the pages and a package: four commands to a working VIP, and
// every other command of the pages does what it is there for, up to the purge.
func TestNewUser(t *testing.T) {
	h := bare(t, "apt", "curl", "busybox", "ip")
	h.www()          // and a network that has nobody at the VIP
	h.debs(release1) // as make package makes them

	start := h.follow("../../docs/start.md")
	outputs := start.section("Four commands")
	if len(outputs) != 4 || outputs[3] != page {
		t.Errorf("the fourth command does not get the page: %q", outputs)
	}
	outputs = start.all()
	if last := outputs[len(outputs)-1]; !strings.Contains(last, "one of 2 backends of VIP www") {
		t.Errorf("explain says\n%s", last)
	}
	if code, out := h.exit("curl", "--silent", "--show-error", "--max-time", "5", "http://10.96.0.80/"); code == 0 {
		t.Errorf("a caller outside the slice gets %q", out)
	}

	// A service that is there already.
	if err := h.WriteFile("/etc/systemd/system/shop.service", []byte("[Service]\nExecStart=/bin/sleep infinity\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.must("systemctl", "start", "shop.service")
	outputs = h.follow("../../docs/services.md", inLab...).all()
	if got := outputs[2]; !strings.Contains(got, "group web") || !strings.Contains(got, "www") {
		t.Errorf("explain --unit says\n%s", got)
	}
	if got := outputs[len(outputs)-1]; !strings.Contains(got, "what starts in web.slice waits for slicelb.service") {
		t.Errorf("doctor says\n%s", got)
	}

	h.debs(release2)
	install := h.follow("../../docs/install.md", "amd64", runtime.GOARCH)
	install.section("From a deb") // what is there already
	outputs = install.all()       // from the upgrade to the purge
	said := strings.Join(outputs, "\n")
	for _, want := range []string{"(1.1.0-1) over (1.0.0-1)", "slicelb 1.1.0", "(1.0.0-1) over (1.1.0-1)"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in what the commands say:\n%s", want, said)
		}
	}
	if got := h.must("ls", "/etc/slicelb", "/etc/slicelb/conf.d"); !strings.Contains(got, "www.toml") || strings.Contains(got, "slicelb.toml") {
		t.Errorf("purged, and left is\n%s", got)
	}
	h.must("getent", "passwd", "slicelb")
}

// debs puts the debs of a release where root is, for this machine's architecture
// and for the other: what is in that one is not asked for.
func (h *host) debs(r release) {
	h.t.Helper()
	deb, _ := packed(h.t, r)
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	name := "/root/" + filepath.Base(deb)
	h.put(deb, name)
	h.must("sh", "-ec", `dpkg-deb --raw-extract "$1" /tmp/other
		sed -i "s/^Architecture: .*/Architecture: $2/" /tmp/other/DEBIAN/control
		dpkg-deb --build -Znone /tmp/other "$3"; rm -r /tmp/other`, "sh",
		name, other, strings.Replace(name, runtime.GOARCH, other, 1))
}

// The README's example is one.
func TestREADME(t *testing.T) {
	h := install(t)
	h.www()
	h.configure("")
	h.start()
	outputs := h.follow("../../README.md").all()
	if len(outputs) != 4 || outputs[2] != page || !strings.Contains(outputs[3], "www") {
		t.Errorf("%q", outputs)
	}
}

// What the README says of an installation by hand, which has a unit that can be masked.
func TestByHand(t *testing.T) {
	h := install(t)
	h.must("rm", unitFile, "/usr/sbin/slicelb", "/etc/sysusers.d/slicelb.conf")
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| `(/[^`]+)`").FindAllStringSubmatch(string(readme), -1)
	if len(rows) != 4 {
		t.Fatalf("the README's table has %d rows", len(rows))
	}
	unitAt := ""
	for _, row := range rows {
		from, to, mode := "../../"+row[1], row[2], os.FileMode(0o644)
		if row[1] == "bin/slicelb" {
			from, mode = binary(t, ""), 0o755
		}
		if strings.HasSuffix(to, "/") {
			to += path.Base(row[1])
		}
		if path.Base(to) == unit {
			unitAt = to
		}
		if err := h.Install(from, to, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		h.Run(context.Background(), "systemctl", "disable", "--now", unit)
		h.Run(context.Background(), "rm", unitAt)
		if err := h.Install("../../packaging/slicelb.service", unitFile, 0o644); err != nil {
			t.Error(err)
		}
		h.Run(context.Background(), "systemctl", "daemon-reload")
	})
	h.must("systemd-sysusers")
	h.must("systemctl", "daemon-reload")
	h.must("systemctl", "enable", "--now", unit)
	if got := h.property("FragmentPath"); got != unitAt {
		t.Errorf("the unit is %s", got)
	}
	if out := h.must("slicelb", "status"); !strings.Contains(out, "no VIP is configured") {
		t.Errorf("status says\n%s", out)
	}
	h.must("systemctl", "mask", "--now", unit)
	if load, active := h.property("LoadState"), h.property("ActiveState"); load != "masked" || active != "inactive" {
		t.Errorf("masked, and it is %s and %s", load, active)
	}
	h.must("systemctl", "unmask", unit)
	h.must("systemctl", "start", unit)
	h.healthy()
}

// The guides of runtimes that are not there: their configurations are taken,
// and the cgroups that the runtimes make are in the groups that the pages say.
func TestGuidesByShape(t *testing.T) {
	h := install(t)
	h.echo()
	for _, tt := range []struct {
		page  string
		calls map[string]bool // cgroup: does it see the VIP?
	}{
		{"docker.md", map[string]bool{
			"/web.slice/docker-0123456789ab.scope":    true,
			"/system.slice/docker-0123456789ab.scope": false,
			"/docker/0123456789ab":                    false,
		}},
		{"lxc.md", map[string]bool{
			"/lxc.payload.web-1/init.scope":                 true,
			"/lxc.payload.web-2-1/system.slice/www.service": true,
			"/lxc.payload.db/init.scope":                    false,
			"/lxc.monitor.web-1":                            false,
		}},
		{"nomad.md", map[string]bool{
			"/nomad.slice/share.slice/7c3f.web.scope":          true,
			"/nomad.slice/reserve.slice/91aa.web.scope":        true,
			"/nomad.slice/libpod-0123456789ab.scope/container": true,
			"/nomad.slice/share.slice/7c3f.db.scope":           false,
			"/system.slice/docker-0123456789ab.scope":          false,
		}},
	} {
		h.configure(local.Replace(firstConfiguration(t, "../../docs/"+tt.page)))
		h.must("systemctl", "restart", unit)
		h.healthy()
		for cgroup, sees := range tt.calls {
			got := h.ask(cgroup)
			if (strings.Trim(got, "0127.: ") == "") != sees {
				t.Errorf("%s: from %s: %s", tt.page, cgroup, got)
			}
		}
	}

	// The groups are there, so the commands of these pages find them.
	h.configure("# none\n")
	h.must("systemctl", "restart", unit)
	h.must("mkdir", "-p", "/sys/fs/cgroup/nomad.slice/share.slice")
	if got := h.follow("../../docs/nomad.md").all(); !strings.Contains(got[len(got)-1], "group nomad") {
		t.Errorf("nomad.md: explain says\n%s", got[len(got)-1])
	}
	h.follow("../../docs/docker.md").all()
	if got := h.follow("../../docs/lxc.md").all(); !strings.Contains(got[len(got)-1], "/lxc.payload.web-*") {
		t.Errorf("lxc.md: group show says\n%s", got[len(got)-1])
	}
	h.follow("../../docs/security.md").all()
}

// local puts the tests' VIP and backends in place of the pages' and examples'.
var local = strings.NewReplacer(
	`["10.96.0.10:5432"]`, `["`+vip+`", "`+vip+`/udp"]`, `["10.96.0.80:80"]`, `["`+vip+`", "`+vip+`/udp"]`,
	`"192.0.2.11:5432"`, `"127.0.0.1:7001"`, `"192.0.2.12:5432"`, `"127.0.0.1:7002"`, `"192.0.2.11:8080"`, `"127.0.0.1:7001"`)

// Metrics as docs/observability.md turns them on.
func TestObservabilityPage(t *testing.T) {
	h := install(t)
	h.needs("curl")
	h.configure("[daemon]\nhttp = \"127.0.0.1:9781\"\n\n" + oldTOML)
	h.start()
	// What goes on until it is interrupted is interrupted here.
	outputs := h.follow("../../docs/observability.md",
		"slicelb observe -f --vip db", "timeout 2 slicelb observe -f --vip db || test $? = 124").all()
	if !strings.Contains(outputs[0], "slicelb_build_info") {
		t.Errorf("metrics:\n%s", outputs[0])
	}
}

// firstConfiguration is the first piece of TOML on a page.
func firstConfiguration(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```toml\n")
	toml, _, ended := strings.Cut(rest, "```\n")
	if !found || !ended {
		t.Fatalf("%s: no configuration", page)
	}
	return toml
}
