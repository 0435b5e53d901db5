package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/lab/labtest"
	"github.com/slicelb/slicelb/internal/scale"
)

// bare returns a lab of its own without slicelb, on which packages can be
// installed: packages go where the shared one has files of the tests.
func bare(t *testing.T, tools ...string) *host {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a systemd")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	h := &host{labtest.Boot(t), t}
	t.Cleanup(func() {
		if t.Failed() {
			h.log()
		}
	})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h.put(exe, actor)
	// Where nothing may be started during an installation, as in the images that
	// containers are made from.
	h.must("rm", "-f", "/usr/sbin/policy-rc.d")
	// man's index is made anew after each installation, which takes longer than that.
	h.must("rm", "-f", "/var/lib/man-db/auto-update")
	// The lab's root is the machine's, which may have slicelb on it.
	h.must("rm", "-rf", "/usr/sbin/slicelb", "/etc/slicelb", "/usr/share/doc/slicelb", "/usr/lib/systemd/system/slicelb.service", "/etc/systemd/system/slicelb.service")
	h.serve()
	return h
}

// put copies a file into the lab.
func (h *host) put(from, to string) {
	h.t.Helper()
	if err := h.Install(from, to, 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// dpkg runs dpkg as an unattended upgrade does.
func (h *host) dpkg(args ...string) {
	h.t.Helper()
	cmd := h.Command(h.t.Context(), "dpkg", append([]string{"--force-unsafe-io", "--force-confdef"}, args...)...)
	cmd.Env = append(cmd.Env, "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("dpkg %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// state is the unit's, as systemctl says it.
func (h *host) state() string {
	_, active := h.exit("systemctl", "is-active", unit)
	_, enabled := h.exit("systemctl", "is-enabled", unit)
	return strings.TrimSpace(active) + " " + strings.TrimSpace(enabled)
}

func (h *host) want(state string) {
	h.t.Helper()
	if got := h.state(); got != state {
		h.t.Fatalf("the unit is %q, want %q", got, state)
	}
}

func (h *host) exists(path string) bool {
	code, _ := h.exit("test", "-e", path)
	return code == 0
}

// The life of a deb on a host, from the first installation to the purge.
//
// fault F3
func TestDeb(t *testing.T) {
	h := bare(t, "dpkg", "deb-systemd-helper", "systemd-analyze")
	for path, r := range map[string]release{"/tmp/first.deb": release1, "/tmp/next.deb": release2} {
		deb, _ := packed(t, r)
		h.put(deb, path)
	}

	// It is enabled and runs, and as it comes it attaches nothing.
	h.dpkg("--install", "/tmp/first.deb")
	h.want("active enabled")
	if s := h.status(); s == nil || s.State != api.OK || s.DataPlane.Attached {
		t.Fatalf("status after the installation: %+v", s)
	}
	if got := h.must("dpkg", "--verify", "slicelb"); got != "" {
		t.Errorf("dpkg --verify:\n%s", got)
	}
	for path, want := range map[string]string{
		"/etc/slicelb": "755 root root", "/etc/slicelb/conf.d": "755 root root",
		config: "644 root root", "/usr/sbin/slicelb": "755 root root",
	} {
		if got := h.must("stat", "-c", "%a %U %G", path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	if got := h.must("slicelb", "version"); !strings.HasPrefix(got, "slicelb 1.0.0 ") {
		t.Errorf("version: %s", got)
	}
	h.analyze()

	// The administrator edits the configuration.
	h.echo()
	edit := "\n# edited here\n" + vipTOML("db", vip, oldOnes...) + keepersTOML()
	original := h.must("cat", config)
	h.configure(original + edit)
	h.must("systemctl", "reload", unit)
	h.healthy()
	kept := func() {
		t.Helper()
		if got := h.must("cat", config); !strings.Contains(got, "edited here") {
			t.Fatalf("the edit is gone:\n%s", got)
		}
	}

	// Up and down under load, at full scale 50 times: all programs are replaced,
	// nobody notices, and who has a backend keeps it.
	l := h.load(oldOnes...)
	runs, keep := h.hooked(), h.keepers()
	rounds := max(2, scale.Count(50))
	for range rounds {
		for _, to := range []struct{ deb, version string }{{"/tmp/next.deb", "1.1.0"}, {"/tmp/first.deb", "1.0.0"}} {
			before := h.property("MainPID")
			h.dpkg("--install", to.deb)
			if pid := h.property("MainPID"); pid == before || pid == "0" {
				t.Fatalf("%s: the main process was %s and is %s", to.version, before, pid)
			}
			if s := h.healthy(); s.Version != to.version || !s.DataPlane.Adopted {
				t.Fatalf("%s: status: version %s, %+v", to.version, s.Version, s.DataPlane)
			}
			runs = h.replaced(runs)
			l.more(100)
			if got := h.keepers(); !maps.Equal(got, keep) {
				t.Fatalf("%s: callers had %v, and have %v", to.version, keep, got)
			}
		}
	}
	if full := scale.Count(100_000); l.connects() < full {
		l.more(full - l.connects())
	}
	l.flawless()
	kept()

	// An upgrade whose own configuration is another keeps the edit as well.
	h.must("sh", "-c", `set -e; dpkg-deb --raw-extract /tmp/next.deb /tmp/changed
		echo "# a new default" >>/tmp/changed/etc/slicelb/slicelb.toml
		sed -i 's/^Version: .*/Version: 1.2.0-1/' /tmp/changed/DEBIAN/control
		dpkg-deb --build /tmp/changed /tmp/changed.deb`)
	h.dpkg("--install", "/tmp/changed.deb")
	kept()
	if got := h.must("cat", config+".dpkg-dist"); !strings.Contains(got, "a new default") {
		t.Errorf("%s.dpkg-dist:\n%s", config, got)
	}
	h.healthy()

	// An upgrade starts nothing that was stopped, and enables nothing.
	h.must("systemctl", "disable", "--now", unit)
	h.dpkg("--install", "/tmp/next.deb")
	h.want("inactive disabled")
	h.must("systemctl", "enable", "--now", unit)

	// A removal stops, and an installation after it is one.
	h.dpkg("--remove", "slicelb")
	if got := h.property("ActiveState"); got != "inactive" {
		t.Errorf("removed, and %s", got)
	}
	if n := h.number("NFileDescriptorStore"); n != 0 {
		t.Errorf("removed, and systemd holds %d descriptors", n)
	}
	if got := h.ask("/web.slice"); !strings.Contains(got, "unreachable") {
		t.Errorf("removed, and a connect gets %s", got)
	}
	kept()
	h.dpkg("--install", "/tmp/next.deb")
	h.want("active enabled")
	if got := h.ask("/web.slice"); strings.Trim(got, "0127.: ") != "" {
		t.Errorf("installed again: %s", got)
	}

	h.must("rm", "-rf", dropins)
	h.dpkg("--purge", "slicelb")
	for _, path := range []string{"/etc/slicelb", "/run/slicelb", "/run/slicelb.install", "/usr/sbin/slicelb",
		"/usr/share/doc/slicelb", "/etc/systemd/system/multi-user.target.wants/slicelb.service"} {
		if h.exists(path) {
			t.Errorf("purged, and %s is there", path)
		}
	}
	if got := h.must("find", "/etc/systemd", "/var/lib/systemd", "-name", "*slicelb*"); got != "" {
		t.Errorf("purged, and these are there:\n%s", got)
	}
	h.must("getent", "passwd", "slicelb") // stays

	// Where the host says that nothing is to be started, nothing is.
	if err := h.WriteFile("/usr/sbin/policy-rc.d", []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.dpkg("--install", "/tmp/first.deb")
	h.want("inactive enabled")
	h.dpkg("--purge", "slicelb")
}

// Installations on hosts that are not like others, and that go wrong: they leave
// nothing behind, and take nothing away.
func TestDebElsewhere(t *testing.T) {
	h := bare(t, "dpkg", "deb-systemd-helper")
	deb, _ := packed(t, release2)
	h.put(deb, "/tmp/slicelb.deb")
	// other is a package with what a test gives it.
	other := func(name, script string) string {
		t.Helper()
		h.must("sh", "-ec", `rm -rf /tmp/other; mkdir -p /tmp/other/DEBIAN; cd /tmp/other
printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: none\n' "$1" >DEBIAN/control
`+script+`
dpkg-deb --build /tmp/other "/tmp/$1.deb"`, "sh", name)
		return "/tmp/" + name + ".deb"
	}
	fails := func(args ...string) {
		t.Helper()
		if code, out := h.exit("dpkg", append([]string{"--force-unsafe-io"}, args...)...); code == 0 {
			t.Fatalf("dpkg %v does not fail:\n%s", args, out)
		}
	}

	// A user of that name is there, of a group of all users.
	h.exit("userdel", "slicelb")
	h.exit("groupdel", "slicelb")
	h.must("useradd", "--system", "--gid=users", "slicelb")

	// A file of it belongs to another package: the first one, since dpkg cannot put back
	// what it has unpacked on the overlay that a lab has.
	h.dpkg("--install", other("squatter", "mkdir -p etc/slicelb; touch etc/slicelb/slicelb.toml"))
	fails("--install", "/tmp/slicelb.deb")
	if h.exists("/run/slicelb.install") {
		t.Error("an installation that failed leaves a note for postinst")
	}
	h.dpkg("--purge", "squatter")

	// Another package wants its place, and then fails: it stays, and serves.
	h.dpkg("--install", "/tmp/slicelb.deb")
	h.echo()
	h.configure(oldTOML)
	h.must("systemctl", "reload", unit)
	h.healthy()
	if got := h.must("stat", "-c", "%U %G", "/run/slicelb/api.sock"); got != "slicelb slicelb" {
		t.Errorf("the socket is %s's", got)
	}
	before := h.property("MainPID")
	fails("--auto-deconfigure", "--install", other("rival", `printf 'Conflicts: slicelb\nReplaces: slicelb\nProvides: slicelb\n' >>DEBIAN/control
printf '#!/bin/sh\nexit 1\n' >DEBIAN/preinst; chmod 755 DEBIAN/preinst`))
	h.want("active enabled")
	if h.property("MainPID") == before {
		t.Fatal("dpkg did not ask for the removal")
	}
	h.healthy()
	if got := h.ask("/web.slice"); strings.Trim(got, "0127.: ") != "" {
		t.Errorf("after a removal that failed: %s", got)
	}
}

// keepers are callers of a VIP with affinity, one for each scope of a slice.
const (
	keepersVIP = "10.96.0.14:7000"
	keepers    = 8
)

func keepersTOML() string {
	return "\n[group.keepers]\nslices = [\"keepers.slice\"]\nsplit = \"*.scope\"\n" +
		strings.Replace(vipTOML("kept", keepersVIP, all...)[len(grouping):],
			`clients = ["web"]`, "clients = [\"keepers\"]\naffinity = \"10m\"", 1)
}

// keepers has each of them call, and says which backend each got.
func (h *host) keepers() map[string]string {
	h.t.Helper()
	got := map[string]string{}
	for i := range keepers {
		scope := fmt.Sprintf("/keepers.slice/%d.scope", i)
		got[scope] = h.askOf(scope, keepersVIP)
		if !slices.Contains(all, got[scope]) {
			h.t.Fatalf("%s: %s", scope, got[scope])
		}
	}
	return got
}

// analyze asks systemd what it thinks of the installed unit.
func (h *host) analyze() {
	h.t.Helper()
	h.must("rm", "-rf", dropins) // that of the tests is not what is shipped
	defer h.serve()
	if code, out := h.exit("systemd-analyze", "verify", "--man=no", "/usr/lib/systemd/system/"+unit); code != 0 || strings.Contains(out, "slicelb") {
		h.t.Errorf("systemd-analyze verify: exit %d\n%s", code, out)
	}
	// 1.7 at most; the worst is 10.
	if code, out := h.exit("systemd-analyze", "security", "--no-pager", "--offline=yes", "--threshold=17", unit); code != 0 {
		h.t.Errorf("systemd-analyze security: exit %d\n%s", code, out)
	}
}

// The life of an rpm under systemd. The distribution is not one of rpm's, so
// the scripts find no systemd-update-helper and call systemctl themselves.
func TestRPM(t *testing.T) {
	h := bare(t, "rpm")
	for path, r := range map[string]release{"/tmp/first.rpm": release1, "/tmp/next.rpm": release2} {
		_, rpm := packed(t, r)
		h.put(rpm, path)
	}
	rpm := func(args ...string) {
		t.Helper()
		h.must("rpm", append([]string{"--dbpath=/var/lib/rpm", "--nodeps", "--force-debian"}, args...)...)
	}

	rpm("--install", "/tmp/first.rpm")
	h.want("inactive enabled") // the preset where there are none
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()

	l := h.load(oldOnes...)
	runs := h.hooked()
	for _, to := range []struct{ rpm, version string }{{"/tmp/next.rpm", "1.1.0"}, {"/tmp/first.rpm", "1.0.0"}} {
		rpm("--upgrade", "--oldpackage", to.rpm)
		if s := h.healthy(); s.Version != to.version || !s.DataPlane.Adopted {
			t.Fatalf("%s: status: version %s, %+v", to.version, s.Version, s.DataPlane)
		}
		runs = h.replaced(runs)
		l.more(100)
	}
	l.flawless()
	if got := h.must("cat", config); got != strings.TrimSpace(oldTOML) {
		t.Errorf("the edit is gone:\n%s", got)
	}

	h.must("systemctl", "stop", unit)
	rpm("--upgrade", "/tmp/next.rpm")
	h.want("inactive enabled")
	h.start()
	rpm("--erase", "slicelb")
	if got := h.property("ActiveState"); got != "inactive" {
		t.Errorf("erased, and %s", got)
	}
	if h.exists("/etc/systemd/system/multi-user.target.wants/slicelb.service") {
		t.Error("erased, and still enabled")
	}
	if got := h.must("cat", config+".rpmsave"); got != strings.TrimSpace(oldTOML) {
		t.Errorf("%s.rpmsave:\n%s", config, got)
	}
}

// The rpm in a root of its own, with rpm's database, and with what the scripts
// call on rpm's distributions: it says what it was asked.
func TestRPMScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("packs")
	}
	if os.Geteuid() != 0 {
		t.Skip("not root: rpm changes the root")
	}
	for _, tool := range []string{"rpm", "busybox"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	_, first := packed(t, release1)
	_, next := packed(t, release2)
	root := t.TempDir()
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	busybox, _ := exec.LookPath("busybox")
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	write("/bin/sh", string(program), 0o755)
	const note = "#!/bin/sh\necho \"${0##*/} $*\" >>/asked\n"
	write("/usr/lib/systemd/systemd-update-helper", note, 0o755)
	write("/usr/bin/systemd-sysusers", note, 0o755)
	rpm := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "rpm", append([]string{"--root=" + root, "--dbpath=/var/lib/rpm", "--nodeps", "--force-debian"}, args...)...)
		cmd.Env = append(os.Environ(), "PATH=/usr/bin:/bin:/usr/sbin:/sbin")
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Run(); err != nil || strings.Contains(stderr.String(), "rror") {
			t.Fatalf("rpm %s: %v\n%s%s", strings.Join(args, " "), err, &stdout, &stderr)
		}
		return stdout.String()
	}
	asked := func(want ...string) {
		t.Helper()
		got, _ := os.ReadFile(filepath.Join(root, "asked"))
		if string(got) != strings.Join(want, "\n")+"\n" {
			t.Errorf("asked:\n%swant:\n%s", got, strings.Join(want, "\n"))
		}
		os.Remove(filepath.Join(root, "asked"))
	}

	rpm("--install", first)
	asked("systemd-sysusers slicelb.conf", "systemd-update-helper install-system-units slicelb.service")
	if got := rpm("--verify", "slicelb"); got != "" {
		t.Errorf("rpm --verify:\n%s", got)
	}
	write(config, "# edited here\n", 0o644)
	for _, to := range []string{next, first} {
		rpm("--upgrade", "--oldpackage", to)
		asked("systemd-sysusers slicelb.conf", "systemd-update-helper mark-restart-system-units slicelb.service")
	}
	if got, _ := os.ReadFile(filepath.Join(root, config)); string(got) != "# edited here\n" {
		t.Errorf("the edit is gone: %s", got)
	}
	rpm("--erase", "slicelb")
	asked("systemd-update-helper remove-system-units slicelb.service")
	var left []string
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.Contains(d.Name(), "slicelb") {
			left = append(left, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if want := "/etc/slicelb " + config + ".rpmsave"; strings.Join(left, " ") != want {
		t.Errorf("left: %v, want %s", left, want)
	}
}
