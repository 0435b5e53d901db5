package e2e

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/scale"
)

const bound = 128 << 20 // bytes that the daemon may have resident

// ticks is the processor time of the daemon so far.
func (h *host) ticks() time.Duration {
	h.t.Helper()
	stat := h.must("cat", "/proc/"+h.property("MainPID")+"/stat")
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	n, err := numbers(fields[11], fields[12])
	if err != nil {
		h.t.Fatal(err)
	}
	return time.Duration(n[0]+n[1]) * time.Second / 100
}

// Cgroups that come and go by the ten thousand each second: bounded memory, every
// connect in its group meanwhile, and what is there is known soon after, by the
// kernel's hints alone, without a bus. fault F10, edge T17, edge T11
func TestStormOfCgroups(t *testing.T) {
	h := identify(t)
	h.startWithoutBus()
	s := h.sample("/web.slice")
	before := h.status()
	const rate = 10_000
	storm := h.churn(rate, scale.Count(60*rate))
	n := scale.Count(10_000)
	got := h.answered("in the storm", h.run("firsts", vip, strconv.Itoa(n), "web.slice", "run-%d.scope"))
	h.right("first instructions in the storm", got, "127.0.0.1:7001", n)
	pace := h.pace(storm)
	took := h.converges("after the storm, with the last of it still there")
	storm.stdin.Close()
	storm.end(h)
	took = max(took, h.converges("without"))
	if scale.Factor() >= 1 && took > 2*time.Second {
		t.Errorf("converged after %v", took)
	}
	s.steady()
	after := h.status()
	t.Logf("%d cgroups made and removed a second, %d in all: %d hints, %d overflows, %d walks, %d MiB resident at most", pace, scale.Count(60*rate),
		difference(before, after, "kernel"), difference(before, after, "overflows"), after.Tracking.Resync.Count-before.Tracking.Resync.Count, h.memory("VmHWM")>>20)
	h.stormy(pace, rate)
	if most := h.memory("VmHWM"); most > bound {
		t.Errorf("%d MiB resident", most>>20)
	}
	h.nothingByTheClock(before)
}

// The kernel's buffer of hints runs over while nobody reads it, and what it holds is
// about another slice: what came meanwhile is found for the overflow alone.
// fault F10, edge T17
func TestOverflow(t *testing.T) {
	h := identify(t)
	h.dropin("patient", "[Service]\nWatchdogSec=0\n") // a stopped daemon stays
	h.startWithoutBus()
	h.removes("/fresh.slice")
	h.must("mkdir", "-p", "/sys/fs/cgroup/fresh.slice")
	h.converges("at first")
	before := h.status()
	pid := h.property("MainPID")
	h.must("kill", "-STOP", pid)
	t.Cleanup(func() { h.Run(context.Background(), "kill", "-CONT", pid) }) // if the test has not come so far
	storm := h.churn(100_000, 30_000)                                       // of which 26,214 hints find room
	h.pace(storm)
	h.crowd("fresh.slice", 300)
	h.must("kill", "-CONT", pid)
	took := h.converges("after an overflow")
	after := h.status()
	lost := after.DataPlane.Events["events_lost"] - before.DataPlane.Events["events_lost"]
	t.Logf("%d hints were lost, %d overflows", lost, difference(before, after, "overflows"))
	if lost == 0 || difference(before, after, "overflows") == 0 {
		t.Error("nothing ran over")
	}
	if took > 10*time.Second {
		t.Errorf("converged after %v", took)
	}
	h.nothingByTheClock(before)
}

// startWithoutBus starts a daemon that systemd tells nothing: its signals lead to looks,
// which find whatever else was missed.
func (h *host) startWithoutBus() {
	h.t.Helper()
	h.dropin("bus", "[Service]\nEnvironment=DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere\n")
	h.must("systemctl", "daemon-reload")
	h.start()
	h.eventually(20*time.Second, "started without a bus", func() bool {
		st := h.status()
		return st != nil && st.DataPlane.Attached && st.Tracking.Mode != "bus"
	})
}

// stormy checks that a storm was one: half as much as is wanted where the counts are whole,
// a tenth on a machine that does much else.
func (h *host) stormy(pace, want int) {
	h.t.Helper()
	least := want / 10
	if scale.Factor() >= 1 {
		least = want / 2
	}
	if pace < least {
		h.t.Errorf("%d a second are no storm of %d", pace, want)
	}
}

// nothingByTheClock checks that the watcher's clock has found nothing that should have
// been found without it.
func (h *host) nothingByTheClock(before *api.Status) {
	h.t.Helper()
	h.eventually(time.Minute, "what a look has found was announced, or is counted", func() bool {
		st := h.status()
		return st != nil && time.Since(st.Tracking.Resync.At) > 1500*time.Millisecond
	})
	if n := difference(before, h.status(), "kernel_lost"); n > 0 {
		h.t.Errorf("the watcher's clock has found %d differences that nothing had announced", n)
	}
}

// Signals of systemd by the ten thousand each second. The real one cannot say so
// much: another stands in for it on a bus of its own. fault F10, edge T14
func TestStormOfSignals(t *testing.T) {
	h := identify(t)
	const rate, dir = 10_000, "/run/storm"
	count := scale.Count(60 * rate)
	bus := h.play("/roles", "storm", dir, strconv.Itoa(rate), strconv.Itoa(count))
	t.Cleanup(func() {
		bus.stdin.Close()
		bus.cmd.Wait()
	})
	h.eventually(10*time.Second, "the bus is there", func() bool { return bus.out.last() == "bus" })
	h.dropin("bus", "[Service]\nEnvironment=DBUS_SYSTEM_BUS_ADDRESS=unix:path="+dir+"/bus\n")
	h.must("systemctl", "daemon-reload")
	h.start()
	begun := time.Now()
	s := h.sample("/web.slice")
	n := scale.Count(2000)
	got := h.answered("in the storm", h.run("firsts", vip, strconv.Itoa(n), "web.slice", "run-%d.scope"))
	h.right("first instructions in the storm", got, "127.0.0.1:7001", n)
	h.eventually(3*time.Minute, "the storm is over", func() bool { return bus.out.last() != "bus" })
	heard, since := uint64(0), time.Now()
	h.eventually(5*time.Minute, "all was heard", func() bool {
		now := h.status().Tracking.Sources["signals"]
		if now != heard {
			heard, since = now, time.Now()
		}
		if heard < uint64(count) && time.Since(since) > 20*time.Second {
			t.Fatalf("%d of %d signals were heard", heard, count)
		}
		return heard >= uint64(count)
	})
	s.steady()
	st := h.status()
	most := h.memory("VmHWM")
	t.Logf("%s signals a second, %d in all: %d walks in %v, %d MiB resident at most, %v of processor time", bus.out.last(), count,
		st.Tracking.Resync.Count, time.Since(begun).Round(time.Second), most>>20, h.ticks())
	if most > bound {
		t.Errorf("%d MiB resident", most>>20)
	}
	pace, err := numbers(bus.out.last())
	if err != nil {
		t.Fatal(err)
	}
	h.stormy(pace[0], rate)
	// Where the kernel hints as well, signals lead to a look each 5 seconds.
	if walks, most := st.Tracking.Resync.Count, uint64(time.Since(begun)/(5*time.Second)*3+10); walks > most {
		t.Errorf("%d walks, %d at most", walks, most)
	}
	h.converges("after the storm")
}

// An unprivileged user pretends to be systemd, and the bus. fault F9
func TestForger(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	h.start()
	l := h.load(oldOnes...)
	s := h.sample("/web.slice")
	before := h.settled() // with the load's scope
	maps := h.must("slicelb", "dump", "maps")
	pid := h.property("MainPID")
	n := scale.Count(1_000_000)
	used, begun := h.ticks(), time.Now()
	rate := strings.TrimSpace(h.run("forger", pid, strconv.Itoa(n)))
	used, took := h.ticks()-used, time.Since(begun)
	var after = h.status()
	h.eventually(20*time.Second, "all were counted", func() bool {
		after = h.status()
		return difference(before, after, "signals_forged")+difference(before, after, "signals_malformed") >= uint64(n)
	})
	t.Logf("%d forged signals, %s a second: %d counted as forged, %d as oversized; %.1f%% of a processor", n, rate,
		difference(before, after, "signals_forged"), difference(before, after, "signals_malformed"), 100*used.Seconds()/took.Seconds())
	if share := used.Seconds() / took.Seconds(); share > 0.2 && scale.Factor() >= 1 {
		t.Errorf("%.1f%% of a processor", 100*share)
	}
	for _, source := range []string{"signals", "calls", "connects", "looks"} {
		if d := difference(before, after, source); d > 0 {
			t.Errorf("%d more %s", d, source)
		}
	}
	if after.Tracking.Mode != "bus" || after.PID != before.PID {
		t.Errorf("mode %q, pid %d; before %d", after.Tracking.Mode, after.PID, before.PID)
	}
	h.sameMaps(maps)
	if said := strings.Count(h.must("journalctl", "--unit="+unit, "--output=cat", "--no-pager", "_PID="+pid), "its sender is not systemd"); said != 1 {
		t.Errorf("logged %d times", said)
	}
	// It still listens.
	heard := after.Tracking.Sources["signals"]
	h.must("systemctl", "start", "after-forgery.slice")
	h.eventually(10*time.Second, "signals arrive", func() bool { return h.status().Tracking.Sources["signals"] > heard })
	h.must("systemctl", "stop", "after-forgery.slice")
	// What was sent to all has not arrived: our match rules name their sender.
	after = h.status()
	if got := difference(before, after, "signals_forged") + difference(before, after, "signals_malformed"); got != uint64(n) {
		t.Errorf("%d were counted", got)
	}
	s.steady()
	l.flawless()
}

func difference(before, after *api.Status, source string) uint64 {
	return after.Tracking.Sources[source] - before.Tracking.Sources[source]
}
