package e2e

import (
	"fmt"
	"strconv"
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
	const killer = "/usr/local/bin/slicelb-killer"
	const trigger = "/run/slicelb/kill"
	if err := h.Install(binary(t, "slicelb_kill"), killer, 0o755); err != nil {
		t.Fatal(err)
	}
	h.exec(killer + " serve --cgroup-root " + lab.CgroupRoot)
	h.dropin("kill", "[Service]\nEnvironment=SLICELB_KILL_FILE="+trigger+"\n")
	h.must("systemctl", "daemon-reload")
	h.echo()

	// Two configurations that differ in much: backends, a VIP, a group, a view.
	extra := "\n[group.more]\nslices = [\"more.slice\"]\n\n[vip.db.for.more]\n[[vip.db.for.more.backend]]\naddress = \"127.0.0.1:7001\"\n" +
		"\n[vip.other]\nfrontends = [\"10.96.0.12:7000\"]\n[[vip.other.backend]]\naddress = \"127.0.0.1:7001\"\n"
	withMore := strings.Replace(newTOML, `clients = ["web"]`, `clients = ["web", "more"]`, 1) + extra
	configs := []string{oldTOML, withMore}
	h.configure(configs[0])
	h.start()
	h.healthy()
	h.clean(configs[0])
	l := h.load(all...)

	stride := max(1, int(1/scale.Factor())/5)
	killed := map[string]int{}
	var took []time.Duration
	for at, misses := 1, 0; misses < 2; at += stride {
		want := configs[(at/stride)%2]
		h.configure(want)
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
		h.clean(want)
		if t.Failed() {
			break
		}
	}
	// The same on the way of a start. The trigger counts the points of one
	// process, so the process that finds it is the one to end.
	for at, misses := 1, 0; misses < 2 && !t.Failed(); at += stride {
		want := configs[(at/stride)%2]
		h.configure(want)
		h.must("sh", "-c", fmt.Sprintf("printf %d >%s", at, trigger))
		h.exit("systemctl", "restart", unit)
		h.eventually(20*time.Second, "active", func() bool { return h.property("ActiveState") == "active" })
		s := h.healthy()
		if code, _ := h.exit("test", "-e", trigger); code == 0 {
			misses++
			h.must("rm", "-f", trigger)
		} else {
			killed[h.killedAt()]++
		}
		if !s.DataPlane.Adopted {
			t.Errorf("kill point %d of a start: not adopted: %q", at, s.Notes)
		}
		if n := h.number("NFileDescriptorStore"); n != s.DataPlane.Held.Want {
			t.Errorf("kill point %d of a start: systemd holds %d descriptors, want %d", at, n, s.DataPlane.Held.Want)
		}
		h.clean(want)
	}
	l.flawless()
	t.Logf("killed at %v", killed)
	h.within(time.Second, "converged after a kill point", took)
	if len(killed) == 0 {
		t.Error("no kill point was met")
	}
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

// clean waits until the maps hold what toml says and nothing else: as many
// entries of each kind as its objects need.
func (h *host) clean(toml string) {
	h.t.Helper()
	more := strings.Count(toml, "[group.more]")
	want := map[string]int{
		"put frontend":     2 + more,
		"set backend-cell": len(addresses(toml)),
		"set group":        3 + more, // the host and the daemon are two
	}
	var have map[string]int
	deadline := time.Now().Add(10 * time.Second)
	for {
		have = map[string]int{}
		for line := range strings.Lines(h.must("slicelb", "dump", "maps")) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			kind := f[0] + " " + f[1]
			if _, counted := want[kind]; counted && !strings.Contains(line, " free") {
				have[kind]++
			}
		}
		if fmt.Sprint(have) == fmt.Sprint(want) {
			return
		}
		if time.Now().After(deadline) {
			h.t.Errorf("the maps hold %v, want %v:\n%s", have, want, h.must("slicelb", "dump", "maps"))
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

// addresses are the backends of all VIPs, each once a VIP.
func addresses(toml string) map[string]bool {
	out := map[string]bool{}
	vip := ""
	for line := range strings.Lines(toml) {
		if name, ok := strings.CutPrefix(line, "[vip."); ok {
			vip, _, _ = strings.Cut(strings.TrimSpace(name), ".")
			vip = strings.TrimSuffix(vip, "]")
		}
		if a, ok := strings.CutPrefix(line, "address = "); ok {
			u, _ := strconv.Unquote(strings.TrimSpace(a))
			out[vip+" "+u] = true
		}
	}
	return out
}
