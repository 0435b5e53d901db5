package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/lab"
	"github.com/slicelb/slicelb/internal/scale"
)

// The daemon ends after each of its map writes, links and words to the
// descriptor store in turn, during a reload and during the start that follows.
// Each connect gets an old backend or a new one, and the next start puts
// everything right. fault F2, edge D40
func TestKillPoints(t *testing.T) {
	h := install(t)
	trigger := h.installKiller()
	h.must("systemctl", "daemon-reload")
	h.echo()

	// Two configurations that differ in much: backends, a VIP, a group, a view.
	extra := "\n[group.more]\nslices = [\"more.slice\"]\n\n[vip.db.for.more]\n[[vip.db.for.more.backend]]\naddress = \"127.0.0.1:7001\"\n" +
		"\n[vip.other]\nfrontends = [\"10.96.0.12:7000\"]\n[[vip.other.backend]]\naddress = \"127.0.0.1:7001\"\n"
	withMore := strings.Replace(newTOML, `clients = ["web"]`, `clients = ["web", "more"]`, 1) + extra
	configs := []string{oldTOML, withMore}
	// What the maps hold of each where nothing was before.
	fresh := map[string]map[string]int{}
	for _, toml := range []string{configs[1], configs[0]} {
		h.configure(toml)
		h.start()
		h.healthy()
		fresh[toml] = h.held()
		if toml != configs[0] {
			h.must("systemctl", "stop", unit)
		}
	}
	l := h.load(all...)

	// Each point is tried on the way to the one configuration and back.
	stride := max(1, int(1/scale.Factor())/5)
	way := func(i int) (at int, toml string) { return 1 + i/2*stride, configs[(i+1)%2] }
	killed := map[string]int{}
	var took []time.Duration
	for i, misses := 0, 0; misses < 4; i++ {
		at, want := way(i)
		h.configure(want)
		l.losesBackends()
		h.must("sh", "-c", fmt.Sprintf("printf %d >%s", at, trigger))
		before := h.property("MainPID")
		code, _ := h.exit("slicelb", "reload")
		if code == 0 {
			misses++ // there are fewer points than that on the way to this one
			h.must("rm", "-f", trigger)
		} else {
			misses = 0
			begin := time.Now()
			h.eventually(20*time.Second, "restarted", func() bool {
				pid := h.property("MainPID")
				return pid != before && pid != "0" && h.property("ActiveState") == "active"
			})
			took = append(took, time.Since(begin))
			killed[h.killedAt()]++
		}
		s := h.healthy()
		if !s.DataPlane.Adopted {
			t.Errorf("kill point %d: not adopted: %q", at, s.Notes)
		}
		if n := h.number("NFileDescriptorStore"); n != s.DataPlane.Held.Want {
			t.Errorf("kill point %d: systemd holds %d descriptors, want %d", at, n, s.DataPlane.Held.Want)
		}
		h.cleaned(fresh[want])
		if t.Failed() {
			break
		}
	}
	// The same on the way of a start. The trigger counts the points of one
	// process, so the process that finds it is the one to end.
	for i, misses := 0, 0; misses < 4 && !t.Failed(); i++ {
		at, want := way(i)
		h.configure(want)
		l.losesBackends()
		h.must("sh", "-c", fmt.Sprintf("printf %d >%s", at, trigger))
		h.exit("systemctl", "restart", unit)
		h.eventually(20*time.Second, "active", func() bool { return h.property("ActiveState") == "active" })
		s := h.healthy()
		if code, _ := h.exit("test", "-e", trigger); code == 0 {
			misses++
			h.must("rm", "-f", trigger)
		} else {
			killed[h.killedAt()]++
			misses = 0
		}
		if !s.DataPlane.Adopted {
			t.Errorf("kill point %d of a start: not adopted: %q", at, s.Notes)
		}
		if n := h.number("NFileDescriptorStore"); n != s.DataPlane.Held.Want {
			t.Errorf("kill point %d of a start: systemd holds %d descriptors, want %d", at, n, s.DataPlane.Held.Want)
		}
		h.cleaned(fresh[want])
	}
	l.flawless()
	t.Logf("killed at %v", killed)
	h.within(time.Second, "converged after a kill point", took)
	if len(killed) == 0 {
		t.Error("no kill point was met")
	}
}

// installKiller has the unit run the build with kill points. It returns the file that
// triggers one.
func (h *host) installKiller() (trigger string) {
	h.t.Helper()
	const killer = "/usr/local/bin/slicelb-killer"
	trigger = "/run/slicelb/kill"
	if err := h.Install(binary(h.t, "slicelb_kill"), killer, 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.exec(killer + " serve --cgroup-root " + lab.CgroupRoot)
	h.dropin("kill", "[Service]\nEnvironment=SLICELB_KILL_FILE="+trigger+"\n")
	return trigger
}

// The loop hangs, in a write to the kernel or in a word to the descriptor store, while
// the rest of the process lives and answers: the watchdog has it restarted, nothing
// fails meanwhile, and the next process does what was under way. fault F24
func TestLoopHangs(t *testing.T) {
	h := install(t)
	trigger := h.installKiller()
	h.dropin("watchdog", "[Service]\nWatchdogSec=2s\n")
	h.must("systemctl", "daemon-reload")
	h.echo()
	h.configure(oldTOML)
	h.start()
	h.healthy()
	l := h.load(all...)
	configs := []string{newTOML, oldTOML}
	watchdogs := func() int {
		return strings.Count(h.must("journalctl", "--unit="+unit, "--output=cat", "--no-pager"), "Watchdog timeout")
	}
	for i, point := range []string{"", "store ", "barrier"} {
		pid := h.property("MainPID")
		before := watchdogs()
		h.configure(configs[i%2])
		l.losesBackends()
		h.must("sh", "-c", fmt.Sprintf("printf 'hang %s' >%s", point, trigger))
		h.must("sh", "-c", "slicelb reload >/dev/null 2>&1 &") // it does not come back
		h.eventually(10*time.Second, "it hangs", func() bool { code, _ := h.exit("test", "-e", trigger); return code != 0 })
		hung := time.Now()
		if s := h.status(); s == nil || fmt.Sprint(s.PID) != pid {
			t.Errorf("at %q: the process that hangs does not answer: %+v", point, s)
		}
		h.eventually(20*time.Second, "restarted", func() bool {
			next := h.property("MainPID")
			return next != pid && next != "0" && h.property("ActiveState") == "active"
		})
		t.Logf("at %q: restarted after %v", point, time.Since(hung).Round(time.Millisecond))
		h.eventually(10*time.Second, "the watchdog did it", func() bool { return watchdogs() > before })
		if s := h.healthy(); !s.DataPlane.Adopted {
			t.Errorf("at %q: not adopted: %q", point, s.Notes)
		}
		if code, out := h.exit("slicelb", "diff"); code != 0 {
			t.Errorf("at %q: the next process does not serve the files:\n%s", point, out)
		}
	}
	l.flawless()
}

// killedAt is the kind of the newest kill point, as the daemon said it.
func (h *host) killedAt() string {
	h.t.Helper()
	out := h.must("journalctl", "--unit="+unit, "--output=cat", "--no-pager", "--lines=200")
	i := strings.LastIndex(out, "kill point ")
	if i < 0 {
		return "?"
	}
	line, _, _ := strings.Cut(out[i:], "\n")
	_, what, _ := strings.Cut(line, ": ")
	words := strings.Fields(what)
	return strings.Join(words[:min(2, len(words))], " ")
}

// held counts what the maps hold, by kind: not cgroups, which come and go, and not
// what is on its way out.
func (h *host) held() map[string]int {
	h.t.Helper()
	out := map[string]int{}
	for line := range strings.Lines(h.must("slicelb", "dump", "maps")) {
		f := strings.Fields(line)
		if len(f) < 2 || strings.Contains(line, " free") || strings.Contains(line, "frontend-ref") && strings.Contains(line, " cell=0 ") {
			continue
		}
		switch f[1] {
		case "cgroup", "backend": // a backend's address stays until its index is used again
			continue
		}
		out[f[0]+" "+f[1]]++
	}
	return out
}

// cleaned waits until the maps hold so many entries of each kind and no more.
func (h *host) cleaned(want map[string]int) {
	h.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		have := h.held()
		if maps.Equal(have, want) {
			return
		}
		if time.Now().After(deadline) {
			h.t.Errorf("the maps hold %v, want %v:\n%s", have, want, h.must("slicelb", "dump", "maps"))
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}
