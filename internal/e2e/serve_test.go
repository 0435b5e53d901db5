package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
)

func TestServe(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	s := h.healthy()
	if got := h.property("StatusText"); !strings.HasPrefix(got, "1 VIP, 2 backends, 1 group") {
		t.Errorf("systemctl status says %q", got)
	}
	if s.DataPlane.Adopted || len(s.DataPlane.Missing) > 0 {
		t.Errorf("data plane: %+v", s.DataPlane)
	}
	if s.Tracking.Mode != "bus" {
		t.Errorf("tracking: %+v", s.Tracking)
	}
	if n := h.number("NFileDescriptorStore"); n != s.DataPlane.Held.Want {
		t.Errorf("systemd holds %d descriptors, want %d", n, s.DataPlane.Held.Want)
	}
	if max := h.number("FileDescriptorStoreMax"); max < 4*s.DataPlane.Held.Want {
		t.Errorf("FileDescriptorStoreMax=%d has no room for several sets of %d", max, s.DataPlane.Held.Want)
	}
	if got := h.must("ps", "-o", "user=", "-p", h.property("MainPID")); got != "slicelb" {
		t.Errorf("the daemon runs as %q", got)
	}
	if got := h.ask("/web.slice/one.scope"); strings.Trim(got, "0127.: ") != "" {
		t.Errorf("web: %s", got)
	}
	if got := h.ask("/other.slice"); !strings.Contains(got, "unreachable") {
		t.Errorf("a caller outside the group: %s", got)
	}
	// A slice that systemd makes only now.
	h.must("systemd-run", "--quiet", "--scope", "--slice=web.slice", "true")
}

func TestCommandLine(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	if code, out := h.exit("slicelb", "status"); code != 3 {
		t.Errorf("status without a daemon: %d\n%s", code, out)
	}
	// One that is on its way is not to be started.
	h.dropin("slow", "[Service]\nExecStartPre=/bin/sleep infinity\n")
	h.must("systemctl", "daemon-reload")
	h.must("systemctl", "start", "--no-block", unit)
	h.eventually(10*time.Second, "it is starting", func() bool { return h.property("ActiveState") == "activating" })
	if code, out := h.exit("slicelb", "status"); code != 3 || !strings.Contains(out, "its unit is starting (start-pre)") {
		t.Errorf("status of a daemon that starts: %d\n%s", code, out)
	}
	h.must("systemctl", "stop", unit)
	h.must("rm", dropins+"/slow.conf")
	h.must("systemctl", "daemon-reload")
	h.start()
	h.healthy()
	h.ask("/web.slice/one.scope")
	h.must("systemd-run", "--quiet", `--unit=data\x2dbase.service`, "--slice=web.slice", "sleep", "infinity")
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"status"}, 0, "kept by systemd over restarts"},
		{[]string{"vip", "list"}, 0, "10.96.0.10:7000,10.96.0.10:7000/udp"},
		{[]string{"vip", "show", "db"}, 0, "127.0.0.1:7001"},
		{[]string{"vip", "show", "nope"}, 4, `no VIP "nope"`},
		{[]string{"group", "list"}, 0, "web.slice"},
		{[]string{"group", "show", "web"}, 0, "/web.slice"},
		{[]string{"backend", "list"}, 0, "127.0.0.1:7002"},
		{[]string{"dump", "maps"}, 0, "put frontend 10.96.0.10:7000/tcp"},
		{[]string{"dump", "config"}, 0, "[vip.db]"},
		{[]string{"diff"}, 0, ""},
		{[]string{"explain", vip, "--cgroup", "/sys/fs/cgroup/web.slice"}, 0, "balance: one of 2 backends of VIP db"},
		{[]string{"explain", vip, "--cgroup", "/web.slice"}, 0, "balance: one of 2 backends of VIP db"},
		{[]string{"explain", vip, "--unit", "slicelb.service"}, 0, "group @daemon has translate = false"},
		{[]string{"explain", vip, "--unit", "nope.service"}, 4, "not loaded"},
		{[]string{"explain", vip, "--unit", `data\x2dbase.service`}, 0, "balance: one of 2 backends of VIP db"}, // edge T19
		{[]string{"explain", vip, "--pid", "1"}, 0, "not among the clients"},
		{[]string{"explain", "10.96.0.10:7001", "--cgroup", "/web.slice"}, 0, "no frontend"},
		{[]string{"explain", vip, "--cgroup", "/nope.slice"}, 4, "does not exist"},
		{[]string{"explain", "nonsense", "--cgroup", "/web.slice"}, 2, "want ADDRESS:PORT"},
		{[]string{"doctor", "--cgroup-root", "/sys/fs/cgroup"}, 0, "slb_connect4"},
		{[]string{"check"}, 0, "ok: 1 VIP, 1 group in 1 file"},
	} {
		code, out := h.exit("slicelb", test.args...)
		if code != test.code || !strings.Contains(out, test.want) {
			t.Errorf("slicelb %s: exit %d, want %d with %q\n%s", strings.Join(test.args, " "), code, test.code, test.want, out)
		}
	}
	// What the daemon cannot read is no configuration, whoever checks it.
	h.must("chmod", "0600", config)
	for _, command := range []string{"check", "reload"} {
		if code, out := h.exit("slicelb", command); code != 78 || !strings.Contains(out, "permission denied") || !strings.Contains(out, "chmod go+r "+config) {
			t.Errorf("%s of what root alone can read: exit %d\n%s", command, code, out)
		}
	}
	h.must("chmod", "0644", config)
	h.must("slicelb", "reload")
	// The socket is for root and the group: others cannot open it, members read.
	if got := h.must("stat", "-c", "%a %U %G", "/run/slicelb/api.sock"); got != "660 slicelb slicelb" {
		t.Errorf("socket: %s", got)
	}
	if code, out := h.exit("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "slicelb", "status"); code != 77 {
		t.Errorf("a stranger: exit %d\n%s", code, out)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"serve"}, 77, "run it as root, or by its unit"},
		{[]string{"doctor", "--cgroup-root", "/sys/fs/cgroup"}, 0, "cannot be listed without CAP_BPF, CAP_NET_ADMIN"},
	} {
		code, out := h.exit("setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", "slicelb"}, test.args...)...)
		if code != test.code || !strings.Contains(out, test.want) || strings.Contains(out, "requires >= v4.15") {
			t.Errorf("a stranger: %s: exit %d, want %d with %q\n%s", test.args[0], code, test.code, test.want, out)
		}
	}
	if code, out := h.exit("setpriv", "--reuid=65534", "--regid=slicelb", "--clear-groups", "slicelb", "status"); code != 0 {
		t.Errorf("a member of the group reads: exit %d\n%s", code, out)
	}
	if code, out := h.exit("setpriv", "--reuid=65534", "--regid=slicelb", "--clear-groups", "slicelb", "reload"); code != 77 {
		t.Errorf("a member of the group changes: exit %d\n%s", code, out)
	}
}

func TestReload(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	l := h.load(all...)

	l.losesBackends()
	h.configure(newTOML)
	if code, out := h.exit("slicelb", "diff"); code != 1 || !strings.Contains(out, "+ backend 127.0.0.1:7003") {
		t.Errorf("diff: exit %d\n%s", code, out)
	}
	h.must("systemctl", "reload", unit)
	if got := h.ask("/web.slice/one.scope"); got != newOnes[0] {
		t.Errorf("after the reload: %s", got)
	}

	before := h.must("slicelb", "dump", "maps")
	h.configure(badTOML)
	code, out := h.exit("slicelb", "reload")
	for _, want := range []string{"70000", `"nonsense"`, "2 errors; running configuration unchanged"} {
		if code != 78 || !strings.Contains(out, want) {
			t.Errorf("bad reload: exit %d, want 78 with %q\n%s", code, want, out)
		}
	}
	if code, _ := h.exit("systemctl", "reload", unit); code == 0 {
		t.Error("systemctl reload of a bad configuration succeeds")
	}
	if after := h.must("slicelb", "dump", "maps"); after != before {
		t.Errorf("a bad reload changed the maps from\n%s\nto\n%s", before, after)
	}
	if s := h.status(); s.State != api.Degraded || s.Config.LastError == "" {
		t.Errorf("status after a bad reload: %+v", s)
	}
	if got := h.property("ActiveState"); got != "active" {
		t.Errorf("unit is %s", got)
	}

	l.losesBackends()
	h.configure(oldTOML)
	h.must("systemctl", "kill", "--signal=HUP", "--kill-who=main", unit)
	h.eventually(5*time.Second, "SIGHUP loads", func() bool { return h.ask("/web.slice/one.scope") != newOnes[0] })
	h.healthy()
	l.flawless()
}

// An empty configuration, as a package installs it, attaches nothing.
func TestNothingAttachedWithoutVIP(t *testing.T) {
	h := install(t)
	h.configure("# nothing yet\n")
	h.start()
	s := h.status()
	if s.State != api.OK || s.DataPlane.Attached {
		t.Errorf("status: %+v", s)
	}
	if _, out := h.exit("slicelb", "doctor", "--cgroup-root", "/sys/fs/cgroup"); strings.Contains(out, "slb_") {
		t.Errorf("programs are attached:\n%s", out)
	}
	// Nor does a restart, though it is handed the state of the process before.
	h.must("systemctl", "restart", unit)
	if s := h.status(); s.State != api.OK || s.DataPlane.Attached {
		t.Errorf("status after a restart: %+v", s)
	}
	// And the first VIP comes with a reload.
	h.echo()
	h.configure(oldTOML)
	h.must("systemctl", "reload", unit)
	if got := h.ask("/web.slice/one.scope"); strings.Trim(got, "0127.: ") != "" {
		t.Errorf("web: %s", got)
	}
	h.healthy()
}

// Drop-ins of /run/slicelb/conf.d last as long as the service: over a reload, a
// restart and a kill, not over a stop. The folder is the daemon's, what is in it root's.
func TestRunDropins(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	const dropin = "/run/slicelb/conf.d/50-more.toml"
	h.must("mkdir", "/run/slicelb/conf.d")
	h.must("sh", "-c", "printf '[vip.more]\\nfrontends = [\"10.96.0.99:80\"]\\n' >"+dropin)
	for _, command := range []string{"check", "reload", "diff"} {
		if code, out := h.exit("slicelb", command); code != 0 {
			t.Fatalf("%s: exit %d\n%s", command, code, out)
		}
	}
	there := func(when string) {
		t.Helper()
		h.healthy()
		if code, out := h.exit("slicelb", "vip", "show", "more"); code != 0 {
			t.Errorf("%s: exit %d\n%s", when, code, out)
		}
	}
	there("a reload")
	h.must("systemctl", "restart", unit)
	there("a restart")
	h.kill("KILL")
	there("a kill")

	h.must("chown", "slicelb", dropin)
	if code, out := h.exit("slicelb", "reload"); code != 78 || !strings.Contains(out, dropin+": error: belongs to uid") {
		t.Errorf("a drop-in of the daemon's user: exit %d\n%s", code, out)
	}
	h.must("systemctl", "stop", unit)
	if code, _ := h.exit("test", "-e", "/run/slicelb"); code == 0 {
		t.Error("/run/slicelb is left")
	}
}

// After systemctl stop nothing is left: no program, no descriptor, no file.
func TestStopLeavesNothing(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	h.must("systemctl", "stop", unit)
	if n := h.number("NFileDescriptorStore"); n != 0 {
		t.Errorf("systemd holds %d descriptors", n)
	}
	if _, out := h.exit("slicelb", "doctor", "--cgroup-root", "/sys/fs/cgroup"); strings.Contains(out, "slb_") {
		t.Errorf("programs are attached:\n%s", out)
	}
	if code, _ := h.exit("test", "-e", "/run/slicelb"); code == 0 {
		t.Error("/run/slicelb is left")
	}
	if got := h.ask("/web.slice/one.scope"); !strings.Contains(got, "unreachable") {
		t.Errorf("a connect after the stop: %s", got)
	}
}

// A broken configuration at the first start: all errors, exit 78, no restart.
func TestFirstStartWithErrors(t *testing.T) {
	h := install(t)
	h.configure(badTOML)
	if code, _ := h.exit("systemctl", "start", unit); code == 0 {
		t.Error("it starts")
	}
	h.eventually(5*time.Second, "failed", func() bool { return h.property("ActiveState") == "failed" })
	if got := h.number("ExecMainStatus"); got != 78 {
		t.Errorf("exit status %d", got)
	}
	if got := h.number("NRestarts"); got != 0 {
		t.Errorf("%d restarts", got)
	}
	out := h.must("journalctl", "--unit="+unit, "--output=cat", "--lines=20", "--no-pager")
	for _, want := range []string{"70000", `"nonsense"`, "2 errors"} {
		if !strings.Contains(out, want) {
			t.Errorf("the journal does not say %q:\n%s", want, out)
		}
	}
}

// A kernel feature or a privilege that is missing ends the start, with what it is.
func TestFirstStartWithoutPrivilege(t *testing.T) {
	h := install(t)
	h.configure(oldTOML)
	h.dropin("caps", "[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=CAP_BPF CAP_NET_ADMIN\nAmbientCapabilities=CAP_BPF CAP_NET_ADMIN\nRestart=no\n")
	h.must("systemctl", "daemon-reload")
	if code, _ := h.exit("systemctl", "start", unit); code == 0 {
		t.Fatal("it starts")
	}
	if got := h.number("ExecMainStatus"); got != 77 {
		t.Errorf("exit status %d, want 77", got)
	}
	out := h.must("journalctl", "--unit="+unit, "--output=cat", "--lines=20", "--no-pager")
	if !strings.Contains(out, "CAP_PERFMON") {
		t.Errorf("the journal does not name what is missing:\n%s", out)
	}
}
