package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/lab"
	"github.com/slicelb/slicelb/internal/scale"
)

// The data plane goes on while the daemon is gone, and the next one adopts it.
// edge D40, edge D41, fault F1, fault F20
func TestKill(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	l := h.load(oldOnes...)
	var took []time.Duration
	kills, connects := scale.Count(100), scale.Count(100_000)
	for i := range kills {
		l.more(rand.IntN(max(1, 2*connects/kills)))
		begin := time.Now()
		h.kill("KILL")
		took = append(took, time.Since(begin))
		if s := h.healthy(); !s.DataPlane.Adopted {
			t.Errorf("kill %d: not adopted: %q", i, s.Notes)
		}
	}
	for l.connects() < connects {
		l.more(100)
	}
	l.flawless()
	h.within(2*time.Second, "back after a kill", took)
}

// One of many starts of a second daemon wins nothing. fault F5
func TestSecondDaemon(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	before := h.healthy()
	maps := h.must("slicelb", "dump", "maps")
	programs := h.must("slicelb", "doctor", "-o", "json", "--cgroup-root", lab.CgroupRoot)
	var took []time.Duration
	for i := range scale.Count(200) {
		begin := time.Now()
		code, out := h.exit("slicelb", "serve", "--cgroup-root", lab.CgroupRoot)
		one := time.Since(begin)
		if code != 1 || !strings.Contains(out, "another daemon runs") {
			t.Fatalf("run %d: exit %d\n%s", i, code, out)
		}
		// Most of it is the way into the lab: see what that takes alone.
		begin = time.Now()
		h.exit("slicelb", "version")
		took = append(took, one-time.Since(begin))
	}
	h.within(100*time.Millisecond, "a second daemon ends", took)
	if after := h.must("slicelb", "dump", "maps"); after != maps {
		t.Errorf("the maps changed from\n%s\nto\n%s", maps, after)
	}
	if after := h.must("slicelb", "doctor", "-o", "json", "--cgroup-root", lab.CgroupRoot); after != programs {
		t.Errorf("the programs changed from\n%s\nto\n%s", programs, after)
	}
	if s := h.healthy(); s.PID != before.PID {
		t.Errorf("another daemon answers: %d, before %d", s.PID, before.PID)
	}
}

// Every way in which a unit comes back. fault F29
func TestComeBack(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	l := h.load(oldOnes...)

	t.Run("five restarts in five seconds", func(t *testing.T) {
		for range 5 {
			h.must("systemctl", "restart", unit)
		}
		if s := h.healthy(); !s.DataPlane.Adopted {
			t.Errorf("not adopted: %q", s.Notes)
		}
	})
	t.Run("SIGTERM of the main process", func(t *testing.T) {
		h.kill("TERM")
		if s := h.healthy(); !s.DataPlane.Adopted {
			t.Errorf("not adopted: %q", s.Notes)
		}
	})
	t.Run("daemon-reexec", func(t *testing.T) {
		h.must("systemctl", "daemon-reexec")
		h.healthy()
		h.kill("KILL")
		if s := h.healthy(); !s.DataPlane.Adopted {
			t.Errorf("not adopted: %q", s.Notes)
		}
	})
	t.Run("crash loop", func(t *testing.T) {
		until := time.Now().Add(time.Duration(max(1, 10*min(1, 10*scale.Factor())) * float64(time.Second)))
		before := h.number("NRestarts")
		for time.Now().Before(until) {
			h.exit("systemctl", "kill", "--signal=KILL", "--kill-who=main", unit)
			n := h.number("NRestarts")
			h.eventually(5*time.Second, "restart", func() bool { return h.number("NRestarts") > n || h.property("MainPID") != "0" })
		}
		if s := h.healthy(); !s.DataPlane.Adopted {
			t.Errorf("not adopted: %q", s.Notes)
		}
		t.Logf("%d crashes", h.number("NRestarts")-before)
	})
	// Go would end with status 2, which prevents a restart.
	for _, signal := range []string{"ABRT", "QUIT", "SEGV"} {
		t.Run("SIG"+signal, func(t *testing.T) {
			h.kill(signal)
			if s := h.healthy(); !s.DataPlane.Adopted {
				t.Errorf("not adopted: %q", s.Notes)
			}
		})
	}
	t.Run("restart with a broken configuration", func(t *testing.T) {
		h.configure(badTOML)
		h.must("systemctl", "restart", unit)
		s := h.status()
		if s == nil || s.State != api.Degraded || !s.Config.LastGood || !s.DataPlane.Adopted {
			t.Fatalf("status: %+v", s)
		}
		if got := h.property("StatusText"); !strings.Contains(got, "LAST GOOD") {
			t.Errorf("systemctl status says %q", got)
		}
		if code, out := h.exit("slicelb", "status"); code != 1 || !strings.Contains(out, "nonsense") {
			t.Errorf("status: exit %d\n%s", code, out)
		}
		// It survives the next kill as well: the last good one is stored again.
		h.kill("KILL")
		if s := h.status(); s == nil || !s.Config.LastGood {
			t.Errorf("after a kill: %+v", s)
		}
		if got := h.ask("/web.slice/one.scope"); strings.Contains(got, "unreachable") {
			t.Errorf("ask: %s", got)
		}
		h.configure(oldTOML)
		h.must("systemctl", "reload", unit)
		if s := h.healthy(); s.Config.LastGood {
			t.Errorf("after the repair: %+v", s.Config)
		}
	})
	t.Run("a unit file with wrong flags", func(t *testing.T) {
		h.exec("/usr/sbin/slicelb serve --nonsense")
		h.must("systemctl", "daemon-reload")
		h.exit("systemctl", "restart", unit)
		h.eventually(5*time.Second, "it fails and is tried again", func() bool { return h.number("NRestarts") > 2 })
		if n := h.number("NFileDescriptorStore"); n == 0 {
			t.Error("the store is empty")
		}
		h.serve()
		h.must("systemctl", "daemon-reload")
		if s := h.healthy(); !s.DataPlane.Adopted {
			t.Errorf("not adopted: %q", s.Notes)
		}
	})
	l.flawless()
}

// What makes systemd drop the store while the daemon runs. fault F28
func TestStoreIsRefilled(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	l := h.load(oldOnes...)
	whole := func() bool {
		s := h.status()
		return s != nil && s.DataPlane.Held.Store && h.number("NFileDescriptorStore") >= s.DataPlane.Held.Want
	}
	adopts := func(t *testing.T) {
		h.kill("KILL")
		if s := h.healthy(); !s.DataPlane.Adopted {
			t.Errorf("not adopted: %q", s.Notes)
		}
	}
	atRisk := func() bool {
		code, out := h.exit("slicelb", "status")
		return code == 1 && strings.Contains(out, "data plane held by this process only")
	}
	t.Run("mask and unmask", func(t *testing.T) {
		h.must("systemctl", "mask", unit)
		h.eventually(15*time.Second, "status says what a kill would cost", atRisk)
		h.must("systemctl", "unmask", unit)
		h.eventually(15*time.Second, "the store is whole", whole)
		adopts(t)
	})
	t.Run("unit file moved away and back", func(t *testing.T) {
		h.must("mv", unitFile, unitFile+".away")
		h.must("systemctl", "daemon-reload")
		h.eventually(15*time.Second, "status says what a kill would cost", atRisk)
		h.must("mv", unitFile+".away", unitFile)
		h.must("systemctl", "daemon-reload")
		h.eventually(15*time.Second, "the store is whole", whole)
		adopts(t)
	})
	t.Run("daemon-reload", func(t *testing.T) {
		h.must("systemctl", "daemon-reload")
		h.eventually(15*time.Second, "the store is whole", whole)
		adopts(t)
	})
	t.Run("a limit that is too low", func(t *testing.T) {
		h.dropin("limit", "[Service]\nFileDescriptorStoreMax=3\n")
		h.must("systemctl", "daemon-reload")
		h.eventually(15*time.Second, "status says what a kill would cost", func() bool {
			code, out := h.exit("slicelb", "status")
			return code == 1 && strings.Contains(out, "data plane held by this process only") && strings.Contains(out, "FileDescriptorStoreMax=3")
		})
		h.must("rm", dropins+"/limit.conf")
		h.must("systemctl", "daemon-reload")
		h.eventually(15*time.Second, "the store is whole", whole)
		adopts(t)
	})
	l.flawless()
}

// A full /run, where the socket and the lock are. fault F17
func TestNoSpace(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	l := h.load(oldOnes...)
	// A small file system of its own stands in for a full /run.
	h.must("sh", "-c", "mount -t tmpfs -o size=64k,nr_inodes=4,mode=0755 full /run/slicelb && chown slicelb:slicelb /run/slicelb && touch /run/slicelb/1 /run/slicelb/lock && chown slicelb:slicelb /run/slicelb/lock && touch /run/slicelb/2; ! touch /run/slicelb/3")
	umounted := false
	defer func() {
		if !umounted {
			h.exit("umount", "/run/slicelb")
		}
	}()
	h.kill("KILL")
	l.more(100)
	if got := h.property("ActiveState"); got != "active" {
		t.Errorf("unit is %s", got)
	}
	h.eventually(5*time.Second, "the journal says it", func() bool {
		return strings.Contains(h.must("journalctl", "--unit="+unit, "--output=cat", "--lines=20", "--no-pager"), "no space left on device")
	})
	h.eventually(5*time.Second, "systemctl status says it", func() bool {
		return strings.Contains(h.property("StatusText"), "no space left on device")
	})
	// With room again, the API comes back by itself.
	h.must("rm", "/run/slicelb/1", "/run/slicelb/2")
	h.healthy()
	l.flawless()
	h.must("systemctl", "stop", unit)
	h.exit("umount", "/run/slicelb")
	umounted = true
}

// A configuration that is cut at any byte is loaded whole or not at all. fault F18
func TestCutConfiguration(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	l := h.load(oldOnes...)
	before := h.must("slicelb", "dump", "maps")
	whole := oldTOML + strings.TrimPrefix(vipTOML("second", "10.96.0.11:7000", oldOnes...), grouping)
	step := max(1, int(1/scale.Factor())/10)
	refused := 0
	for n := len(oldTOML) + 1; n < len(whole); n += step {
		h.configure(whole[:n])
		code, out := h.exit("slicelb", "reload")
		switch code {
		case 0: // what is left is a configuration
			want := h.must("slicelb", "check", "-o", "json")
			if !strings.Contains(want, `"ok": true`) {
				t.Fatalf("cut at %d: loaded, and check says\n%s", n, want)
			}
			h.configure(oldTOML)
			h.must("slicelb", "reload")
			before = h.must("slicelb", "dump", "maps")
		case 78:
			refused++
			if after := h.must("slicelb", "dump", "maps"); after != before {
				t.Fatalf("cut at %d: refused, and the maps changed from\n%s\nto\n%s", n, before, after)
			}
		default:
			t.Fatalf("cut at %d: exit %d\n%s", n, code, out)
		}
	}
	if refused == 0 {
		t.Error("no cut was refused")
	}
	l.flawless()
}

// The files are gone, all of them: neither a reload nor a restart takes a VIP away.
// fault F18
func TestFilesGone(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	l := h.load(oldOnes...)
	h.must("mv", "/etc/slicelb", "/etc/slicelb.gone")
	t.Cleanup(func() { h.Run(context.Background(), "rm", "-rf", "/etc/slicelb.gone") })
	for _, command := range []string{"reload", "diff"} {
		if code, out := h.exit("slicelb", command); code != 78 || !strings.Contains(out, config+" is missing") {
			t.Errorf("%s without files: exit %d\n%s", command, code, out)
		}
	}
	h.must("systemctl", "restart", unit)
	s := h.status()
	if s == nil || s.State != api.Degraded || !s.Config.LastGood || len(s.VIPs) != 1 || !s.DataPlane.Adopted {
		t.Errorf("restarted without files: %+v", s)
	}
	if got := h.property("StatusText"); !strings.HasPrefix(got, "1 VIP") || !strings.Contains(got, "LAST GOOD") {
		t.Errorf("systemctl status says %q", got)
	}
	h.must("mv", "/etc/slicelb.gone", "/etc/slicelb")
	h.must("slicelb", "reload")
	h.healthy()
	l.flawless()

	// A file that says so takes it away, and everybody is told.
	h.configure("# none\n")
	if _, out := h.exit("slicelb", "reload"); !strings.Contains(out, "no VIP is configured any more: 1 VIP") {
		t.Errorf("reload says\n%s", out)
	}
	if got := h.property("StatusText"); !strings.HasPrefix(got, "no VIP is configured") {
		t.Errorf("systemctl status says %q", got)
	}
}

// The store holds something else than a whole set of ours. fault F4
func TestStoreHoldsOther(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	// A new set of maps does not know what sockets under way were told, so their
	// peers' names may be wrong; no connect may fail.
	t.Run("under load", func(t *testing.T) {
		l := h.load(oldOnes...)
		h.swap(t, func() { l.more(100) }, []swap{
			{"foreign objects beside ours", "add=foreign add=slb1-nonsense add=slb9-0000000000000000-map-cells", true},
			{"all programs are missing", "drop=-prog-", true},
			{"the last good configuration is missing", "drop=state-", true},
			{"the last good configuration is something else", "swap=state-", true},
		})
		l.flawless()
		l = h.load(oldOnes...)
		h.swap(t, func() { l.more(100) }, []swap{
			{"a map is missing", "drop=-map-cells", false},
			{"a map is another object", "swap=-map-backends", false},
		})
		if sum := l.stop(); sum.Failed > 0 || sum.Connects == 0 {
			t.Errorf("%d of %d connects failed:\n%s", sum.Failed, sum.Connects, strings.Join(sum.Reasons, "\n"))
		} else {
			t.Logf("%d connects, %d of an earlier set's sockets with another peer's name", sum.Connects, sum.Wrong)
		}
	})
	// With its link a hook is gone: it comes back with the daemon.
	t.Run("without links", func(t *testing.T) {
		h.swap(t, func() {}, []swap{
			{"a link is missing", "drop=-link-slb_connect4-", true},
			{"all links are other objects", "swap=-link-", false},
			{"everything is missing", "drop=", false},
		})
	})
}

// swap is what somebody did to the store, and whether the rest is adopted.
type swap struct {
	name    string
	words   string
	adopted bool
}

// swap has somebody else run as the unit's main process in between.
func (h *host) swap(t *testing.T, meanwhile func(), swaps []swap) {
	for _, s := range swaps {
		t.Run(s.name, func(t *testing.T) {
			h.exec(fmt.Sprintf("%s %s", actor, s.words))
			h.dropin("role", "[Service]\nEnvironment="+roleVar+"=squatter\n")
			h.must("systemctl", "daemon-reload")
			h.must("systemctl", "restart", unit)
			meanwhile()
			h.serve()
			h.must("rm", dropins+"/role.conf")
			h.must("systemctl", "daemon-reload")
			h.must("systemctl", "restart", unit)
			status := h.healthy()
			if status.DataPlane.Adopted != s.adopted {
				t.Errorf("adopted: %t, want %t; %q", status.DataPlane.Adopted, s.adopted, status.Notes)
			}
			if n := h.number("NFileDescriptorStore"); n != status.DataPlane.Held.Want {
				t.Errorf("systemd holds %d descriptors, want %d", n, status.DataPlane.Held.Want)
			}
			if got := h.ask("/web.slice/one.scope"); strings.Trim(got, "0127.: ") != "" {
				t.Errorf("ask: %s", got)
			}
			meanwhile()
		})
	}
}

// A daemon that hangs is ended by the watchdog and comes back. fault F24
func TestWatchdog(t *testing.T) {
	h := install(t)
	h.echo()
	if scale.Factor() < 1 {
		h.dropin("watchdog", "[Service]\nWatchdogSec=2s\n")
		h.must("systemctl", "daemon-reload")
	}
	h.configure(oldTOML)
	h.start()
	before := h.healthy()
	l := h.load(oldOnes...)
	begin := time.Now()
	h.must("kill", "-STOP", h.property("MainPID"))
	h.eventually(20*time.Second, "restarted", func() bool {
		pid := h.number("MainPID")
		return pid != before.PID && pid != 0 && h.property("ActiveState") == "active"
	})
	t.Logf("restarted after %v", time.Since(begin).Round(time.Millisecond))
	if s := h.healthy(); !s.DataPlane.Adopted {
		t.Errorf("not adopted: %q", s.Notes)
	}
	if got := h.property("WatchdogTimestampMonotonic"); got == "0" {
		t.Error("no sign of life")
	}
	l.flawless()
}

// A link that somebody severs is made again, and the journal says so. fault F13
func TestSeveredLink(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	var took []time.Duration
	for range max(3, scale.Count(50)) {
		r := h.play("/sever", "sever", "slb_connect4")
		if err := r.cmd.Wait(); err != nil || r.out.last() != "1" {
			t.Fatalf("sever: %v, %s links\n%s", err, r.out.last(), r.stderr.Bytes())
		}
		begin := time.Now()
		h.eventually(10*time.Second, "connects reach a backend", func() bool {
			return strings.Trim(h.ask("/web.slice/one.scope"), "0127.: ") == ""
		})
		took = append(took, time.Since(begin))
	}
	// Hooks are looked at twice a second; a busy machine takes its time now and then.
	if least := slices.Min(took); least > 1500*time.Millisecond {
		t.Errorf("attached again after %v at the least", least)
	}
	h.within(2*time.Second, "attached again", took)
	// In this run: another test may have cut links before.
	run := "_SYSTEMD_INVOCATION_ID=" + h.property("InvocationID")
	said := 0
	h.eventually(10*time.Second, "the journal says each", func() bool {
		said = 0
		for line := range strings.Lines(h.must("journalctl", run, "--output=cat", "--no-pager")) {
			if strings.Contains(line, "a hook is not ours any more") && strings.Contains(line, "connect4") {
				said++
			}
		}
		return said >= len(took)
	})
	if said > len(took) {
		t.Errorf("cut %d times, said %d times", len(took), said)
	}
	// The new link is in the store.
	h.kill("KILL")
	if s := h.healthy(); !s.DataPlane.Adopted {
		t.Errorf("not adopted: %q", s.Notes)
	}
	if got := h.ask("/web.slice/one.scope"); strings.Trim(got, "0127.: ") != "" {
		t.Errorf("ask: %s", got)
	}
}

// systemd reads its units again, or executes itself again: nothing changes in
// the kernel, and the store stays whole. fault F7
func TestManagerReloads(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	l := h.load(oldOnes...)
	before := h.settled()
	sampled := h.sample("/web.slice")
	n := scale.Count(100)
	for range n {
		h.must("systemctl", "daemon-reload")
		h.must("systemctl", "daemon-reexec")
	}
	after := h.settled()
	sampled.steady()
	if after.PID != before.PID || after.DataPlane.Writes != before.DataPlane.Writes {
		t.Errorf("%d writes before, %d after, by %d and %d", before.DataPlane.Writes, after.DataPlane.Writes, before.PID, after.PID)
	}
	t.Logf("%d of each", n)
	l.flawless()
}

// settled is the status when nothing has been written for a while.
func (h *host) settled() *api.Status {
	h.t.Helper()
	s, since := h.healthy(), time.Now()
	h.eventually(20*time.Second, "no writes for a second", func() bool {
		if next := h.healthy(); next.DataPlane.Writes != s.DataPlane.Writes {
			s, since = next, time.Now()
		}
		return time.Since(since) > time.Second
	})
	return h.healthy()
}

// Hosts that cannot be served say why, once. edge D26, edge D27
func TestRefusedHosts(t *testing.T) {
	h := install(t)
	h.configure(oldTOML)
	serve := "exec slicelb serve --socket /tmp/refused/api.sock"
	for _, test := range []struct {
		name, script string
		code         int
		want         string
	}{
		{"cgroup namespace", serve, 78, "--cgroup-root /sys/fs/cgroup"},
		{"no cgroups", "umount -l /sys/fs/cgroup && " + serve, 78, "no cgroup2 filesystem is mounted"},
		{"named, and not cgroup2", serve + " --cgroup-root /tmp", 2, "not a cgroup2 filesystem"},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, out := h.exit("unshare", "--mount", "sh", "-c", test.script)
			if code != test.code || !strings.Contains(out, test.want) {
				t.Errorf("exit %d, want %d with %q\n%s", code, test.code, test.want, out)
			}
		})
	}
}
