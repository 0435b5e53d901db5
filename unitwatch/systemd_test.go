package unitwatch

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/lab"
	"github.com/slicelb/slicelb/internal/lab/labtest"
	"github.com/slicelb/slicelb/internal/scale"
)

// systemd is what tests ask of a manager: a real one in a lab, or a fake one.
type systemd interface {
	start(unit, slice string) // a scope or service, running soon
	startSlice(slice string)
	stop(unit string)
	reload()
	path(rel string) string // a cgroup's directory
	options() Options       // to watch it, by its signals alone
}

// onSystemd runs a test on a fake manager and on the real one. Slices are told
// apart by the test's prefix, since the real one is shared.
func onSystemd(t *testing.T, test func(t *testing.T, s systemd)) {
	t.Run("fake", func(t *testing.T) { test(t, newFakeSystemd(t)) })
	t.Run("real", func(t *testing.T) { test(t, &realSystemd{t, labtest.Shared(t)}) })
}

type realSystemd struct {
	t   testing.TB
	lab *lab.Lab
}

func (r *realSystemd) run(args ...string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := r.lab.Run(ctx, args[0], args[1:]...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *realSystemd) start(unit, slice string) {
	r.t.Helper()
	if strings.HasSuffix(unit, ".scope") {
		ctx, cancel := context.WithCancel(context.Background())
		cmd := r.lab.Command(ctx, "systemd-run", "--quiet", "--scope", "--collect", "--unit="+unit, "--slice="+slice, "--description=the unit "+unit, "sleep", "infinity")
		if err := cmd.Start(); err != nil {
			cancel()
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { cancel(); _ = cmd.Wait() }) // killed by stop or by cancel
		return
	}
	r.run("systemd-run", "--quiet", "--collect", "--unit="+unit, "--slice="+slice, "--description=the unit "+unit, "sleep", "infinity")
	r.t.Cleanup(func() { _, _ = r.lab.Run(context.Background(), "systemctl", "stop", unit) }) // the test may have done so
}

func (r *realSystemd) startSlice(slice string) {
	r.t.Helper()
	r.run("systemctl", "start", slice)
	r.t.Cleanup(func() { _, _ = r.lab.Run(context.Background(), "systemctl", "stop", slice) })
}
func (r *realSystemd) stop(unit string)       { r.t.Helper(); r.run("systemctl", "stop", unit) }
func (r *realSystemd) reload()                { r.t.Helper(); r.run("systemctl", "daemon-reload") }
func (r *realSystemd) path(rel string) string { return filepath.Join(r.lab.CgroupDir(), rel) }

func (r *realSystemd) options() Options {
	return Options{CgroupRoot: r.lab.CgroupDir(), Dial: r.dial, Runs: r.lab.Root() + "/run/systemd/units", Resync: time.Hour}
}

func (r *realSystemd) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	return dialAddresses(ctx, "unix:path="+r.lab.Root()+"/run/dbus/system_bus_socket")
}

func (w *running) onBus() {
	w.t.Helper()
	w.await("connected", func(s *Snapshot) bool { return s.Mode == Bus && s.Cause == "" && s.Complete })
	w.stats("resynced", func(s Stats) bool { return s.Walks >= 2 })
}

// edge T5, T4: pending, mapped when it appears, another id after a restart
func TestSliceComesAndGoes(t *testing.T) {
	onSystemd(t, func(t *testing.T, s systemd) {
		o := s.options()
		o.Tree = compile(t, group("web", "/t5.slice"), group("sub", "/t5.slice/t5-sub.slice"))
		r := run(t, o)
		r.onBus()
		r.lines("pending", "/t5.slice pending", "/t5.slice/t5-sub.slice pending")
		s.startSlice("t5-sub.slice")
		r.lines("both", "/t5.slice anchor web", "/t5.slice/t5-sub.slice anchor sub")
		first := cgroupID(t, s.path("/t5.slice"))
		s.stop("t5-sub.slice")
		s.stop("t5.slice")
		r.lines("stopped", "/t5.slice pending", "/t5.slice/t5-sub.slice pending")
		s.startSlice("t5.slice")
		snap := r.lines("again", "/t5.slice anchor web", "/t5.slice/t5-sub.slice pending")
		c, _ := snap.find("/t5.slice")
		if want := cgroupID(t, s.path("/t5.slice")); c.ID != want || c.ID == first {
			t.Errorf("id %d, want %d, which was %d before", c.ID, want, first)
		}
	})
}

// edge T16: units that restart at the same path; edge T1
func TestUnits(t *testing.T) {
	onSystemd(t, func(t *testing.T, s systemd) {
		o := s.options()
		o.Tree = compile(t, group("web", "/t16.slice"), group("deep", "/t16.slice/t16-b.slice"))
		r := run(t, o)
		r.onBus()
		s.start("t16a.service", "t16.slice")
		s.start("t16b.scope", "t16-b.slice")
		want := []string{
			"/t16.slice anchor web",
			"/t16.slice/t16-b.slice anchor deep",
			"/t16.slice/t16-b.slice/t16b.scope member deep",
			"/t16.slice/t16a.service member web",
		}
		r.lines("running", want...)
		named := func(snap *Snapshot, path, unit string) bool {
			c, _ := snap.find(path)
			return c.Unit == unit && c.Description() == "the unit "+unit && len(c.InvocationID()) == 32
		}
		snap := r.await("named", func(snap *Snapshot) bool {
			return named(snap, "/t16.slice/t16a.service", "t16a.service") && named(snap, "/t16.slice/t16-b.slice/t16b.scope", "t16b.scope")
		})
		first, _ := snap.find("/t16.slice/t16a.service")
		s.stop("t16a.service")
		r.lines("stopped", want[:3]...)
		s.start("t16a.service", "t16.slice")
		snap = r.lines("restarted", want...)
		c, _ := snap.find("/t16.slice/t16a.service")
		if want := cgroupID(t, s.path("/t16.slice/t16a.service")); c.ID != want || c.ID == first.ID {
			t.Errorf("id %d, want %d, which was %d before", c.ID, want, first.ID)
		}
		r.await("named anew", func(snap *Snapshot) bool {
			c, _ := snap.find("/t16.slice/t16a.service")
			if c.InvocationID() == first.InvocationID() {
				t.Errorf("its run is called %s, as the one before", c.InvocationID())
			}
			return named(snap, "/t16.slice/t16a.service", "t16a.service")
		})
	})
}

// edge T2, T3: a slice made by mkdir is mapped, and keeps its id when systemd
// adopts it
func TestAdoptedSlice(t *testing.T) {
	onSystemd(t, func(t *testing.T, s systemd) {
		o := s.options()
		hints := make(chan Hint, 8)
		o.Hints = hints
		o.Tree = compile(t, group("jobs", "/t3.slice"))
		r := run(t, o)
		r.onBus()
		id := mkdir(t, s.path("/t3.slice"))
		t.Cleanup(func() { _ = os.Remove(s.path("/t3.slice")) }) // systemd may have removed it
		hints <- Hint{ID: id, Parent: cgroupID(t, s.path("/")), Kind: HintMkdir}
		snap := r.lines("made by mkdir", "/t3.slice anchor jobs")
		if c, _ := snap.find("/t3.slice"); c.ID != id || c.Unit != "" {
			t.Errorf("%+v, want id %d and no unit", c, id)
		}
		s.startSlice("t3.slice")
		r.await("known to systemd", func(snap *Snapshot) bool {
			c, ok := snap.find("/t3.slice")
			if !ok || c.ID != id {
				t.Errorf("it flapped: %q", show(snap))
			}
			return c.Unit == "t3.slice"
		})
		if got := cgroupID(t, s.path("/t3.slice")); got != id {
			t.Errorf("systemd made it anew: id %d, was %d", got, id)
		}
	})
}

// edge T13
func TestSignalsAreNotBelieved(t *testing.T) {
	f := newFakeSystemd(t)
	o := f.options()
	hints := make(chan Hint, 8)
	o.Hints = hints
	o.Tree = compile(t, group("web", "/web.slice"))
	r := run(t, o)
	r.onBus()
	f.start("a.service", "web.slice")
	hints <- Hint{Kind: HintLost}
	r.lines("running", "/web.slice anchor web", "/web.slice/a.service member web")
	walks := r.Stats().Walks
	for range 10 { // UnitRemoved while the directory lives
		f.emit("UnitRemoved", "a.service", unitObject)
		f.emit("UnitRemoved", "web.slice", unitObject)
	}
	r.stats("signals", func(s Stats) bool { return s.Signals >= 20 })
	hints <- Hint{Kind: HintLost}
	r.stats("looked", func(s Stats) bool { return s.Walks > walks })
	r.lines("unchanged", "/web.slice anchor web", "/web.slice/a.service member web")

	// gone without UnitRemoved
	id, parent := cgroupID(t, f.path("/web.slice/a.service")), cgroupID(t, f.path("/web.slice"))
	if err := os.Remove(f.path("/web.slice/a.service")); err != nil {
		t.Fatal(err)
	}
	hints <- Hint{ID: id, Parent: parent, Kind: HintRmdir}
	r.lines("gone", "/web.slice anchor web")
}

// edge T7, the watcher's half: a reload changes nothing, and ends in a resync.
func TestReload(t *testing.T) {
	onSystemd(t, func(t *testing.T, s systemd) {
		o := s.options()
		o.Tree = compile(t, group("web", "/t7.slice"))
		r := run(t, o)
		r.onBus()
		s.start("t7.service", "t7.slice")
		want := []string{"/t7.slice anchor web", "/t7.slice/t7.service member web"}
		r.lines("running", want...)
		before, _ := r.last.find("/t7.slice/t7.service")
		for i := range uint64(3) {
			s.reload()
			snap := r.await("reloaded", func(snap *Snapshot) bool {
				c, ok := snap.find("/t7.slice/t7.service")
				if !ok || c.ID != before.ID {
					t.Errorf("a reload changed something: %q", show(snap))
				}
				return snap.Reloads > i
			})
			if !snap.Complete || snap.Mode != Bus {
				t.Errorf("%s, complete %v: %s", snap.Mode, snap.Complete, snap.Cause)
			}
		}
	})
}

// edge T19: what systemd really makes of such names
func TestRealDirectoryNames(t *testing.T) {
	s := &realSystemd{t, labtest.Shared(t)}
	o := s.options()
	o.Tree = compile(t,
		group("cpu", fromUnit(t, "cpu.slice")), group("esc", fromUnit(t, `t19\x2dx.slice`)),
		group("bpf", fromUnit(t, "t19-_x.slice")))
	r := run(t, o)
	r.onBus()
	s.start("t19a.service", "cpu.slice")
	s.start(`t19\x2db@1000.service`, `t19\x2dx.slice`)
	s.start("t19c.service", "t19-_x.slice")
	r.lines("running",
		"/_cpu.slice anchor cpu",
		"/_cpu.slice/t19a.service member cpu",
		"/t19.slice way ",
		"/t19.slice/t19-_x.slice anchor bpf",
		"/t19.slice/t19-_x.slice/t19c.service member bpf",
		`/t19\x2dx.slice anchor esc`,
		`/t19\x2dx.slice/t19\x2db@1000.service member esc`,
	)
	r.await("named", func(snap *Snapshot) bool {
		a, _ := snap.find("/_cpu.slice")
		b, _ := snap.find(`/t19\x2dx.slice/t19\x2db@1000.service`)
		return a.Unit == "cpu.slice" && b.Unit == `t19\x2db@1000.service` && b.Description() == "the unit "+b.Unit
	})
}

// aloneOnTheBus ends whoever has subscribed to systemd's signals: with one subscriber it
// says everything to all.
func (r *realSystemd) aloneOnTheBus() {
	r.t.Helper()
	r.run("systemctl", "mask", "--runtime", "--now", "systemd-logind.service")
	names, err := r.lab.Run(r.t.Context(), "busctl", "--no-legend", "list")
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(names) {
		if f := strings.Fields(line); len(f) > 2 && strings.HasPrefix(f[0], ":") && f[2] != "systemd" && f[2] != "busctl" {
			r.t.Fatalf("somebody else is on the bus: %s", line)
		}
	}
}

// edge T8, T10: daemon-reexec; edge T9: dbus-daemon killed and restarted; edge T12:
// another client unsubscribes. In a lab of its own: they disturb everybody.
func TestRealTrouble(t *testing.T) {
	s := &realSystemd{t, labtest.Boot(t)}
	s.aloneOnTheBus()
	o := s.options()
	o.Tree = compile(t, group("web", "/t8.slice"))
	r := run(t, o)
	r.onBus()
	s.start("t8.service", "t8.slice")
	want := []string{"/t8.slice anchor web", "/t8.slice/t8.service member web"}
	r.lines("running", want...)
	anchorID := cgroupID(t, s.path("/t8.slice"))

	comesAndGoes := func(what string) {
		t.Helper()
		s.start("t8x.service", "t8.slice")
		r.lines(what+": a new unit", append(want[:2:2], "/t8.slice/t8x.service member web")...)
		s.stop("t8x.service")
		snap := r.lines(what+": it stopped", want...)
		if c, _ := snap.find("/t8.slice"); c.ID != anchorID {
			t.Errorf("%s: the anchor's id is %d, was %d", what, c.ID, anchorID)
		}
	}
	comesAndGoes("at first")

	s.run("busctl", "call", systemdName, string(systemdPath), managerIface, "Subscribe")
	comesAndGoes("another client came and went")

	before := r.Stats()
	s.run("systemctl", "daemon-reexec")
	const renamed = "systemd's name has another owner"
	r.stats("systemd left the bus and is back, on the same connection of ours", func(st Stats) bool {
		return st.Mode == Bus && st.Walks > before.Walks && st.Causes[renamed] > before.Causes[renamed] && st.Connects == before.Connects
	})
	comesAndGoes("after daemon-reexec")

	before = r.Stats()
	s.run("systemctl", "kill", "--signal=KILL", "dbus.service")
	begun := time.Now()
	r.stats("connected again", func(st Stats) bool { return st.Connects > before.Connects && st.Mode == Bus })
	t.Logf("connected again after %v", time.Since(begun))
	comesAndGoes("after the bus was killed")
}

// A slice that systemd speaks of is looked for at once, though the kernel's hint
// of it was lost.
func TestSliceWithoutHint(t *testing.T) {
	onSystemd(t, func(t *testing.T, s systemd) {
		o := s.options()
		o.Hints = make(chan Hint) // and none comes
		o.Tree = compile(t, group("web", "/t26.slice", "/t26.slice/t26-?.slice"))
		r := run(t, o)
		r.onBus()
		var took []time.Duration
		for range max(5, scale.Count(200)) {
			walks := r.Stats().Walks
			s.startSlice("t26-a.slice")
			begun := time.Now()
			r.lines("there", "/t26.slice anchor web", "/t26.slice/t26-a.slice anchor web")
			took = append(took, time.Since(begun))
			if r.Stats().Walks > walks && took[len(took)-1] < hintedGap/2 {
				t.Log("everything was looked at meanwhile")
			}
			s.stop("t26-a.slice")
			s.stop("t26.slice")
			r.lines("gone", "/t26.slice pending", "/t26.slice/t26-?.slice pending")
		}
		slices.Sort(took)
		t.Logf("known %v after its start was reported in the median, %v at p99, of %d", took[len(took)/2], took[len(took)*99/100], len(took))
		if median := took[len(took)/2]; median > hintedGap/2 {
			t.Errorf("median %v: it was found by a walk", median)
		}
	})
}

// A unit that only the bus told of: its directory's place does not follow from its
// name. Where the kernel's hints are to come and this one was lost, the first after
// some quiet is looked for at once, the others by and by.
func TestUnitByBusAlone(t *testing.T) {
	onSystemd(t, func(t *testing.T, s systemd) {
		o := s.options()
		o.Tree = compile(t, group("web", "/t27.slice"))
		s.startSlice("t27.slice")
		first := func(r *running, unit string) time.Duration {
			t.Helper()
			path := "/t27.slice/" + unit
			made := make(chan time.Time, 1)
			go func() { // the directory's time is not that of mkdir
				for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(100 * time.Microsecond) {
					if _, err := os.Stat(s.path(path)); err == nil {
						break
					}
				}
				made <- time.Now()
			}()
			s.start(unit, "t27.slice")
			r.await("there", func(snap *Snapshot) bool { _, ok := snap.find(path); return ok })
			return max(0, time.Since(<-made))
		}
		report := func(what string, took []time.Duration) {
			t.Helper()
			slices.Sort(took)
			p99 := took[len(took)*99/100]
			t.Logf("%s: known %v after mkdir in the median, %v at p99, of %d", what, took[len(took)/2], p99, len(took))
			if median := took[len(took)/2]; median > time.Second || scale.Factor() >= 1 && p99 > 50*time.Millisecond {
				t.Errorf("%s: %v in the median, %v at p99", what, median, p99)
			}
		}
		var took []time.Duration
		r := run(t, o)
		r.onBus()
		for i := range max(5, scale.Count(200)) {
			took = append(took, first(r, "t27a"+strconv.Itoa(i)+".service"))
		}
		report("no hints", took)
		took = nil
		o.Hints = make(chan Hint) // and none comes
		for i := range max(3, scale.Count(20)) {
			r := run(t, o)
			r.onBus()
			took = append(took, first(r, "t27b"+strconv.Itoa(i)+".service"))
		}
		report("hints that were lost", took)
	})
}
