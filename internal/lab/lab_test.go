package lab_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/lab"
	"github.com/slicelb/slicelb/internal/lab/labtest"
)

func TestMain(m *testing.M) {
	if how := os.Getenv(victimVar); how != "" {
		beVictim(how)
	}
	os.Exit(labtest.Main(m))
}

// run runs a command in the lab and returns its output without the last newline.
func run(t *testing.T, l *lab.Lab, name string, args ...string) string {
	t.Helper()
	out, err := l.Run(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(out, "\n")
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for tick := time.Tick(5 * time.Millisecond); !ok(); <-tick {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Ino
}

// TestHostWithSystemd runs this one too: it holds where the host runs systemd
// and where it does not.
func TestBoot(t *testing.T) {
	l := labtest.Boot(t)
	if got := run(t, l, "systemctl", "is-system-running"); got != "running" {
		t.Errorf("systemd is %q:\n%s", got, run(t, l, "systemctl", "--failed"))
	}
	if got := run(t, l, "busctl", "get-property", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
		"org.freedesktop.systemd1.Manager", "Virtualization"); !strings.HasPrefix(got, "s ") {
		t.Errorf("no answer on the bus: %q", got)
	}
	got := run(t, l, "systemd-run", "--wait", "--pipe", "--quiet", "--unit=one", "--slice=web.slice", "cat", "/proc/self/cgroup")
	if !strings.HasSuffix(got, "0::/web.slice/one.service") {
		t.Errorf("a service in web.slice is in %q", got)
	}
	// A cgroup has one id, whichever way one looks at it.
	run(t, l, "systemctl", "start", "shop.slice")
	id := run(t, l, "stat", "-c", "%i", lab.CgroupRoot+"/shop.slice")
	eventually(t, "journald has a line", func() bool {
		out, _ := l.Run(t.Context(), "journalctl", "--unit=shop.slice", "--output=cat")
		return strings.Contains(out, "shop.slice")
	})
	if out := inode(t, filepath.Join(l.CgroupDir(), "shop.slice")); id != formatInode(out) {
		t.Errorf("shop.slice is %s inside and %d outside", id, out)
	}
}

func TestCommand(t *testing.T) {
	l := labtest.Shared(t)
	if got := run(t, l, "sh", "-c", "grep ^0:: /proc/self/cgroup; echo $HOME; pwd"); got != "0::/lab-exec\n/root\n/" {
		t.Errorf("a command found %q", got)
	}
	out, err := l.CommandIn(t.Context(), "/bare.slice/x.scope", "grep", "^0::", "/proc/self/cgroup").Output()
	if err != nil || string(out) != "0::/bare.slice/x.scope\n" {
		t.Errorf("CommandIn: %q, %v", out, err)
	}
	_, err = l.Run(t.Context(), "sh", "-c", "echo because >&2; exit 7")
	if err == nil || !strings.Contains(err.Error(), "exit status 7: because") {
		t.Errorf("Run of a failing command: %v", err)
	}
	out, err = l.Self(t.Context(), "-test.run=^TestWhereAmI$", "-test.v").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "host name lab") {
		t.Errorf("Self: %s%v", out, err)
	}
}

func TestWhereAmI(t *testing.T) {
	name, err := os.Hostname()
	t.Logf("host name %s, %v", name, err)
}

// What was started by a command goes when the command's context does.
func TestCommandCancelled(t *testing.T) {
	l := labtest.Shared(t)
	ctx, cancel := context.WithCancel(t.Context())
	cmd := l.CommandIn(ctx, "/cancelled", "sleep", "infinity")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	procs := func() string {
		b, _ := os.ReadFile(filepath.Join(l.CgroupDir(), "cancelled/cgroup.procs"))
		return string(b)
	}
	comm := func() bool { // nsenter and the program are in it
		for pid := range strings.FieldsSeq(procs()) {
			if b, _ := os.ReadFile("/proc/" + pid + "/comm"); string(b) == "sleep\n" {
				return true
			}
		}
		return false
	}
	eventually(t, "the program runs", comm)
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("a killed command ended well")
	}
	eventually(t, "nothing is left of it", func() bool { return procs() == "" })
}

// Nothing done in the lab is seen on the host.
func TestIsolation(t *testing.T) {
	before, err := os.Stat("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	l := labtest.Shared(t)
	const path = "/etc/slicelb-lab-test/a file"
	if err := l.WriteFile(path, []byte("hello\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if got := run(t, l, "cat", path); got != "hello" {
		t.Errorf("read back %q", got)
	}
	if got := run(t, l, "stat", "-c", "%a %U", path); got != "640 root" {
		t.Errorf("the file is %s", got)
	}
	// /var/run is an absolute link: from outside it would lead to the host's /run.
	if err := l.Install("/proc/self/exe", "/var/run/slicelb-lab-test", 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, l, "chmod", "0620", "/dev/null")
	run(t, l, "hostname", "changed")
	if out, err := l.Run(t.Context(), "sh", "-c", "echo 1 >/proc/sys/kernel/pid_max"); err == nil {
		t.Errorf("the lab may write the host's sysctls: %s", out)
	}
	run(t, l, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	run(t, l, "chmod", "0666", "/dev/null")
	run(t, l, "hostname", "lab")

	for _, path := range []string{path, "/run/slicelb-lab-test"} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is on the host", path)
		}
	}
	after, err := os.Stat("/dev/null")
	if err != nil || before.Mode() != after.Mode() {
		t.Errorf("/dev/null on the host was %v, is %v, %v", before.Mode(), after.Mode(), err)
	}
	if name, _ := os.Hostname(); name == "changed" {
		t.Error("the host's name changed")
	}
}

func TestTwoAtOnce(t *testing.T) {
	a, b := labtest.Boot(t), labtest.Boot(t)
	run(t, a, "systemctl", "start", "only-a.slice")
	if out := run(t, b, "sh", "-c", "systemctl is-active only-a.slice || :"); out != "inactive" {
		t.Errorf("only-a.slice is %s in b", out)
	}
	if err := a.Stop(); err != nil {
		t.Error(err)
	}
	if got := run(t, b, "systemctl", "is-system-running"); got != "running" {
		t.Errorf("b is %s after the end of a", got)
	}
}

// On a host with systemd the lab lives in a delegated scope. Such a host is at
// hand: another lab.
func TestHostWithSystemd(t *testing.T) {
	l := labtest.Boot(t)
	out, err := l.Self(t.Context(), "-test.run=^(TestBoot|TestNothingLeft)$", "-test.v").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "system.slice/slicelb-lab-") || !strings.Contains(string(out), "--- PASS: TestNothingLeft") {
		t.Errorf("in a lab: %v\n%s", err, out)
	}
	eventually(t, "the scope is gone", func() bool {
		return run(t, l, "systemctl", "list-units", "--all", "--plain", "--no-legend", "slicelb-lab-*") == ""
	})
}
