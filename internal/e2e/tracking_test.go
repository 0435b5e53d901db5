package e2e

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/lab"
	"github.com/slicelb/slicelb/internal/scale"
)

// identities has a backend for each way in which a caller can come to a group:
// who answers says in which the caller was.
const identities = `[group.web]
slices = ["web.slice"]

[group.fresh]
slices = ["fresh.slice"]

[group.glob]
slices = ["/glob.slice/glob-*.slice", "/loose-?.slice"]

[group.jobs]
slices = ["nomad.slice"]
split = "*.scope"

[vip.who]
frontends = ["10.96.0.10:7000", "10.96.0.10:7000/udp"]
backend = [{ address = "127.0.0.1:7005" }]
for.web.backend = [{ address = "127.0.0.1:7001" }]
for.fresh.backend = [{ address = "127.0.0.1:7002" }]
for.glob.backend = [{ address = "127.0.0.1:7003" }]
for.jobs.backend = [{ address = "127.0.0.1:7004" }]
`

// identify starts the daemon with identities, and a backend for each.
func identify(t *testing.T) *host {
	t.Helper()
	h := install(t)
	r := h.play("/backends", "backends", "127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003", "127.0.0.1:7004", "127.0.0.1:7005")
	t.Cleanup(func() {
		r.cmd.Process.Kill()
		r.cmd.Wait()
	})
	h.eventually(10*time.Second, "backends listen", func() bool { return r.out.last() == "listening" })
	h.configure(identities)
	return h
}

// shapes are the ways in which the cgroup of a process comes to be: what is
// there, what is made anew, and who answers it.
var shapes = []struct{ name, fixed, fresh, who string }{
	{"a new scope in a slice", "web.slice", "run-%d.scope", "127.0.0.1:7001"},
	{"a configured slice that was not there", "", "fresh.slice", "127.0.0.1:7002"},
	{"a scope in a slice that was not there", "", "fresh.slice/x-%d.scope", "127.0.0.1:7002"},
	{"a slice that a glob matches", "glob.slice", "glob-%d.slice", "127.0.0.1:7003"},
	{"a split child", "nomad.slice/share.slice", "%d.task.scope", "127.0.0.1:7004"},
	{"a split child, with all above it", "", "nomad.slice/reserve.slice/%d.task.scope", "127.0.0.1:7004"},
}

// answered reads who answered, and how often.
func (h *host) answered(what, out string) answers {
	h.t.Helper()
	got := answers{}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		h.t.Fatalf("%s: %v: %q", what, err, out)
	}
	return got
}

// right checks that all had the same answer.
func (h *host) right(what string, got answers, who string, n int) {
	h.t.Helper()
	if got[who] != n || len(got) != 1 && !(len(got) == 2 && got["stale"] == 0) {
		h.t.Errorf("%s: want %s for all %d: %v", what, who, n, got)
		return
	}
	h.t.Logf("%s: the right group for %d of %d", what, got[who], n)
}

// The first thing that a process does in a new cgroup is to connect, nested 0 to 5
// deep, with the daemon running and with the daemon stopped: always its group.
// fault F12, edge D24, edge T2, edge T4
func TestFirstInstruction(t *testing.T) {
	h := identify(t)
	h.dropin("patient", "[Service]\nWatchdogSec=0\n") // a stopped daemon stays
	h.must("systemctl", "daemon-reload")
	h.start()
	h.healthy()
	n := scale.Count(10_000)
	for _, when := range []string{"running", "stopped"} {
		t.Run(when, func(t *testing.T) {
			pid := h.property("MainPID")
			if when == "stopped" {
				h.must("kill", "-STOP", pid)
			}
			h.withoutSlices() // that another test has left
			for _, s := range shapes {
				got := h.answered(s.name, h.run("firsts", vip, strconv.Itoa(n), s.fixed, s.fresh))
				h.right(s.name+", "+when, got, s.who, n)
				h.withoutSlices()
			}
			h.must("kill", "-CONT", pid)
			h.converges(when)
		})
	}
}

// withoutSlices removes the slices that TestFirstInstruction makes by mkdir.
func (h *host) withoutSlices() {
	h.t.Helper()
	h.eventually(10*time.Second, "without slices", func() bool {
		left := false
		for _, name := range []string{"nomad.slice", "glob.slice", "fresh.slice"} {
			dir := filepath.Join("/sys/fs/cgroup", name)
			h.exit("find", dir, "-depth", "-type", "d", "-delete") // one of a process that just ended is busy
			code, _ := h.exit("test", "-e", dir)
			left = left || code == 0
		}
		return !left
	})
}

// removes has cgroups that a test makes, and what is in them, removed when it ends.
func (h *host) removes(paths ...string) {
	h.t.Helper()
	h.t.Cleanup(func() {
		for _, path := range paths {
			h.Run(context.Background(), "find", lab.CgroupRoot+path, "-depth", "-type", "d", "-delete")
		}
	})
}

// The same by way of systemd: units whose slice is there, or is made for them.
// fault F12, edge T5
func TestFirstInstructionOfUnits(t *testing.T) {
	h := identify(t)
	h.compileFirst()
	h.dropin("patient", "[Service]\nWatchdogSec=0\n")
	h.must("systemctl", "daemon-reload")
	h.start()
	h.healthy()
	n := scale.Count(1700) // of each kind, ten thousand in all
	for _, when := range []string{"running", "stopped"} {
		pid := h.property("MainPID")
		if when == "stopped" {
			h.must("kill", "-STOP", pid)
		}
		for _, u := range []struct{ slice, cycle, who string }{
			{"web.slice", "", "127.0.0.1:7001"},
			{"fresh-%d-a-b-c-d.slice", "", "127.0.0.1:7002"},
			{"glob-%d.slice", "", "127.0.0.1:7003"},
		} {
			got := h.answered(u.slice, h.run("units", vip, strconv.Itoa(n), u.slice, u.cycle, pid))
			h.right("units in "+u.slice+", "+when, got, u.who, n)
			h.must("systemctl", "stop", "fresh.slice", "glob.slice", "web.slice") // and all below
		}
		if when == "stopped" {
			h.must("kill", "-CONT", pid)
		}
	}
	h.converges("after the stop")
}

// A slice is stopped and started again and again; its first process connects, and
// what the kernel knew of it is gone with it. fault F8, edge T4, edge T16
func TestSliceCycles(t *testing.T) {
	h := identify(t)
	h.compileFirst()
	h.start()
	h.healthy()
	n := scale.Count(1000)
	looker := h.play("/roles", "cycled", h.property("MainPID"), "fresh.slice")
	t.Cleanup(func() { looker.stdin.Close(); looker.cmd.Wait() })
	h.eventually(10*time.Second, "somebody looks", func() bool { return looker.out.last() == "looking" })
	got := h.answered("cycles", h.run("units", vip, strconv.Itoa(n), "fresh.slice", "stop", h.property("MainPID")))
	h.right("a slice stopped and started", got, "127.0.0.1:7002", n)
	looker.stdin.Close()
	looker.cmd.Wait()
	var saw cycled
	if err := json.Unmarshal(looker.stderr.Bytes(), &saw); err != nil {
		t.Fatalf("%v: %s", err, looker.stderr.Bytes())
	}
	if saw.Missing+saw.Wrong+saw.Stale > 0 || saw.IDs < n/2 {
		t.Errorf("between the cycles: %+v", saw)
	}
	t.Logf("between the cycles: %+v", saw)
	h.converges("after the cycles")
}

// compileFirst puts testdata/first.c into the lab.
func (h *host) compileFirst() {
	h.t.Helper()
	h.needs("gcc")
	program := filepath.Join(h.t.TempDir(), "first")
	if out, err := exec.Command("gcc", "-static", "-O2", "-o", program, "testdata/first.c").CombinedOutput(); err != nil {
		h.t.Fatalf("gcc: %v\n%s", err, out)
	}
	if err := h.Install(program, first, 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// converges waits until the kernel has exactly what cgroupfs holds, and says how
// long that took.
func (h *host) converges(what string) time.Duration {
	h.t.Helper()
	took, err := time.ParseDuration(strings.TrimSpace(h.run("compare", h.property("MainPID"), "web.slice", "fresh.slice", "glob.slice/glob-*.slice", "nomad.slice")))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Logf("%s: the kernel has what cgroupfs holds after %v", what, took.Round(time.Millisecond))
	return took
}

// A user closes the cgroup that was delegated to him: the daemon starts all the same and
// says so, what a reload removes is removed, and what the kernel has mapped in there
// stays. Of root's own it is a problem. edge T26
func TestClosedCgroup(t *testing.T) {
	h := identify(t)
	const own, inner = "/nomad.slice/own.service", "/nomad.slice/own.service/inner.slice"
	mapped := strings.Replace(identities, `"fresh.slice"`, `"fresh.slice", "`+inner+`"`, 1)
	unwebbed := strings.NewReplacer("[group.web]", "[group.gone]", "for.web.", "for.gone.", `"web.slice"`, `"gone.slice"`).Replace(mapped)
	h.configure(mapped)
	h.start()
	h.must("systemd-run", "--unit=own", "--slice=nomad.slice", "--uid=nobody", "-p", "Delegate=yes",
		"sh", "-c", "cd "+lab.CgroupRoot+own+" && chmod 700 . && mkdir inner.slice && exec sleep infinity")
	t.Cleanup(func() { h.Run(context.Background(), "systemctl", "stop", "own") })
	told := func() bool {
		s := h.healthy()
		return s.Tracking.Complete && strings.Contains(strings.Join(s.Notes, "\n"), "1 cgroup may not be looked into, "+own+" for one")
	}
	right := func(what, cgroup, who string) {
		t.Helper()
		h.right(what, h.answered(what, h.run("firsts", vip, "2", cgroup, "d%d")), who, 2)
	}
	h.eventually(10*time.Second, "the user has closed his cgroup, and status tells of it", told)
	right("mapped by the kernel", inner, "127.0.0.1:7002")
	right("in the group around it", own+"/other", "127.0.0.1:7004")

	h.must("systemctl", "restart", unit)
	h.eventually(10*time.Second, "status tells of it after a restart", told)
	right("in web", "web.slice", "127.0.0.1:7001")
	first := h.healthy().Tracking.Resync.At
	for s := h.healthy(); s.Tracking.Resync.At.Sub(first) < 3*time.Second; s = h.healthy() {
		h.configure(mapped)
		h.must("slicelb", "reload")
		h.configure(unwebbed)
		h.must("slicelb", "reload")
	}
	right("in web, which is no group any more", "web.slice", "127.0.0.1:7005")
	right("mapped by the kernel, after many walks", inner, "127.0.0.1:7002")
	if n := h.healthy().Tracking.Sources["walk_errors"]; n != 0 {
		t.Errorf("%d walks were tried again", n)
	}
	if text, x := h.explanation("--cgroup", inner); x.Group != "fresh" || x.Decided != inner || x.Gone {
		t.Errorf("explain to root: %s", text)
	}
	text := h.must("setpriv", "--reuid=daemon", "--regid=slicelb", "--clear-groups", "slicelb", "explain", vip, "--cgroup", inner)
	if !strings.Contains(text, own+"  ") || !strings.Contains(text, "may not be looked into") || !strings.Contains(text, "hidden") {
		t.Errorf("explain to one who may not see it: %s", text)
	}
	h.must("systemctl", "stop", unit)
	h.start()
	h.eventually(10*time.Second, "status tells of it after a first start", told)
	right("made before the kernel mapped anything", inner, "127.0.0.1:7004")
	h.must("systemctl", "stop", "own")
	h.eventually(10*time.Second, "nothing to tell", func() bool { return !strings.Contains(strings.Join(h.healthy().Notes, "\n"), "looked into") })

	nomad := lab.CgroupRoot + "/nomad.slice"
	h.removes("/nomad.slice")
	h.must("sh", "-c", "mkdir -p "+nomad+" && chmod 700 "+nomad+" && mkdir "+nomad+"/a.scope")
	h.eventually(10*time.Second, "a directory of root's is a problem", func() bool {
		s := h.status()
		return s != nil && s.State == api.Degraded && strings.Contains(strings.Join(s.Problems, "\n"), `1 cgroup cannot be looked into: cgroup "/nomad.slice": permission denied`)
	})
	h.must("chmod", "755", nomad)
	h.healthy()
}
