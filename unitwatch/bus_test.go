package unitwatch

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godbus/dbus/v5"
)

// edge T11: no bus at start: ready all the same; edge T9: the bus comes, goes
// and comes back
func TestBusComesAndGoes(t *testing.T) {
	f := &fakeSystemd{t: t, bus: newPrivateBus(t), root: ownCgroup(t), links: t.TempDir(), units: map[string]string{}}
	o := f.options()
	o.Tree = compile(t, group("web", "/web.slice"))
	mkdir(t, f.path("/web.slice"))
	r := run(t, o)
	snap := r.lines("ready without a bus", "/web.slice anchor web")
	if snap.Mode != CgroupfsOnly || snap.Cause == "" {
		t.Errorf("mode %s, cause %q", snap.Mode, snap.Cause)
	}
	for i := range uint64(3) {
		r.await("a bus that is not there", func(s *Snapshot) bool {
			return s.Mode == CgroupfsOnly && strings.Contains(s.Cause, "no message bus")
		})
		f.bus.start()
		f.claim()
		r.await("connected", func(s *Snapshot) bool { return s.Mode == Bus && s.Cause == "" })
		mkdir(t, f.path("/web.slice/a.service"))
		f.emit("JobRemoved", uint32(1), systemdPath+"/job/1", "a.service", "done")
		r.lines("its signals arrive", "/web.slice anchor web", "/web.slice/a.service member web")
		removeCgroups(t, f.path("/web.slice/a.service"))
		f.emit("UnitRemoved", "a.service", unitObject)
		r.lines("and again", "/web.slice anchor web")
		if got := r.Stats().Connects; got != i+1 {
			t.Errorf("%d connections, want %d", got, i+1)
		}
		f.bus.stop()
	}
}

// edge T10: systemd leaves the bus, and comes back as somebody else
func TestSystemdLeavesTheBus(t *testing.T) {
	f := newFakeSystemd(t)
	o := f.options()
	o.Tree = compile(t, group("web", "/web.slice"))
	r := run(t, o)
	r.onBus()
	for i := range 3 {
		if _, err := f.conn.ReleaseName(systemdName); err != nil {
			t.Fatal(err)
		}
		old := f.conn
		r.await("gone", func(s *Snapshot) bool {
			return s.Mode == CgroupfsOnly && strings.Contains(s.Cause, "systemd is not on")
		})
		f.claim()
		r.await("back", func(s *Snapshot) bool { return s.Mode == Bus })
		f.mu.Lock()
		if f.subscribe != i+2 {
			t.Errorf("%d subscriptions, want %d", f.subscribe, i+2)
		}
		f.mu.Unlock()
		f.start("a.service", "web.slice")
		r.lines("its signals arrive", "/web.slice anchor web", "/web.slice/a.service member web")
		f.stop("a.service")
		r.lines("and again", "/web.slice anchor web")
		if err := old.Emit(systemdPath, managerIface+".Reloading", true); err != nil { // nobody is listening to it now
			t.Fatal(err)
		}
	}
	if got := r.Stats().Connects; got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
}

// Every member with bodies of every wrong kind.
func wrongBodies() [][]any {
	values := []any{
		"a.service", "", "no unit\n", ":1.5", dbus.ObjectPath("/x"), uint32(7), uint64(7), int16(-1), true, 1.5, byte(3),
		[]byte{1}, []string{"x"}, dbus.MakeVariant("x"), []dbus.Variant{}, map[string]dbus.Variant{}, dbus.SignatureOf("x"),
		struct{ A, B string }{"x", "y"},
	}
	bodies := [][]any{nil}
	for _, a := range values {
		bodies = append(bodies, []any{a}, []any{a, a}, []any{a, a, a}, []any{a, a, a, a}, []any{a, a, a, a, a})
		for _, b := range values {
			bodies = append(bodies, []any{a, b}, []any{"a.service", a, b}, []any{uint32(1), dbus.ObjectPath("/x"), a, b})
		}
	}
	return bodies
}

// What is sent to us alone is dropped and counted, what is sent to all does not even
// arrive: each match rule names its sender. fault F9
func TestForgedSignals(t *testing.T) {
	f := newFakeSystemd(t)
	o := f.options()
	o.Tree = compile(t, group("web", "/web.slice"))
	r := run(t, o)
	r.onBus()
	r.SetUnits([]string{"a*.service"}) // their signals are listened to as well
	r.units("none yet")
	f.start("a.service", "web.slice")
	want := []string{"/web.slice anchor web", "/web.slice/a.service member web"}
	r.lines("running", want...)
	r.unitsAre("its run is known", func(u *Units) bool { return len(u.List) == 1 && u.List[0].Invocation != "" })
	// The trailing walk is over, so that no walk is due from here on.
	r.stats("quiet", func(s Stats) bool {
		return s.LastResyncCause == "signals" && time.Since(s.LastResync) > trailGap+walkGap
	})
	before := r.Stats()

	forger := f.bus.connect()
	var names []string
	if err := f.conn.BusObject().Call(busName+".ListNames", 0).Store(&names); err != nil {
		t.Fatal(err)
	}
	sent := uint64(0)
	for _, body := range wrongBodies() {
		for _, member := range append([]string{nameOwnerEvent, "JobNew", propertiesChanged}, managerSignals...) {
			iface, path := managerIface, systemdPath
			switch member {
			case nameOwnerEvent:
				iface, path = busName, busPath
				body = append([]any{systemdName}, body...) // what our rule is about
			case propertiesChanged:
				iface, path = propertiesIface, objectOf("a.service")
				body = append([]any{unitIface}, body...)
			}
			if err := forger.Emit(path, iface+"."+member, body...); err != nil { // broadcast: matches no rule
				t.Fatal(err)
			}
			for _, to := range names {
				if to[0] != ':' || to == f.conn.Names()[0] || to == forger.Names()[0] {
					continue
				}
				msg := &dbus.Message{Type: dbus.TypeSignal, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{
					dbus.FieldDestination: dbus.MakeVariant(to),
					dbus.FieldPath:        dbus.MakeVariant(path),
					dbus.FieldInterface:   dbus.MakeVariant(iface),
					dbus.FieldMember:      dbus.MakeVariant(member),
				}}
				if len(body) > 0 {
					msg.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
				}
				if call := forger.Send(msg, nil); call.Err != nil {
					t.Fatal(call.Err)
				}
				sent++
			}
		}
	}
	if sent == 0 {
		t.Fatal("nobody to send to")
	}
	// The bus answers in order, and so it says what it is told next after all of that.
	if err := forger.BusObject().Call(busName+".GetId", 0).Err; err != nil {
		t.Fatal(err)
	}
	f.emit("Reloading", true)
	r.stats("systemd is heard", func(s Stats) bool { return s.Signals > before.Signals })
	after := r.Stats()
	if after.ForgedSignals != before.ForgedSignals+sent {
		t.Errorf("%d were counted, %d were sent to us", after.ForgedSignals-before.ForgedSignals, sent)
	}
	if after.Signals != before.Signals+1 || after.MalformedSignals != before.MalformedSignals || after.Walks != before.Walks || after.Snapshots != before.Snapshots || after.Calls != before.Calls {
		t.Errorf("forged signals changed something:\n%+v\n%+v", before, after)
	}
	if s := r.await("still there", func(*Snapshot) bool { return true }); s.Mode != Bus || strings.Join(show(s), ",") != strings.Join(want, ",") {
		t.Errorf("%s %q", s.Mode, show(s))
	}
	t.Logf("%d forged signals", after.ForgedSignals)
}

// Bodies that systemd would not send, from systemd's own name.
func TestMalformedSignals(t *testing.T) {
	f := newFakeSystemd(t)
	o := f.options()
	o.Tree = compile(t, group("web", "/web.slice"))
	r := run(t, o)
	r.onBus()
	sent := uint64(0)
	for _, body := range wrongBodies() {
		for _, member := range managerSignals {
			if _, ok, err := decodeSignal(managerIface, member, body); err != nil && !ok {
				f.emit(member, body...)
				sent++
			}
		}
	}
	f.emit("UnitNew", strings.Repeat("x", maxSignal)+".service", unitObject) // oversized
	r.stats("all counted", func(s Stats) bool { return s.MalformedSignals == sent+1 })
	f.start("a.service", "web.slice")
	r.lines("still listening", "/web.slice anchor web", "/web.slice/a.service member web")
}

// edge T14, fault F10: one resync for any number of signals
func TestStormOfSignals(t *testing.T) {
	f := newFakeSystemd(t)
	o := f.options()
	o.Tree = compile(t, group("web", "/web.slice"))
	r := run(t, o)
	r.onBus()
	before := r.Stats()
	const storm = 10_000
	begun := time.Now()
	for i := range storm {
		f.emit("UnitNew", "u"+strings.Repeat("x", i%200)+".scope", unitObject)
	}
	r.stats("all arrived", func(s Stats) bool { return s.Signals >= before.Signals+storm })
	took := time.Since(begun)
	f.start("a.service", "web.slice")
	r.lines("still listening", "/web.slice anchor web", "/web.slice/a.service member web")
	if walks := r.Stats().Walks - before.Walks; walks > uint64(took/walkGap)+10 {
		t.Errorf("%d walks in %v", walks, took)
	}
}

// edge T15: names are asked for by name, a few at a time; nothing else is asked.
func TestQuestions(t *testing.T) {
	f := newFakeSystemd(t)
	o := f.options()
	o.Tree = compile(t, group("web", "/web.slice"))
	f.startSlice("web.slice")
	mkdir(t, f.path("/web.slice/mkdir.service")) // systemd knows nothing of it
	for i := range 30 {
		f.start("u"+string(rune('a'+i%26))+string(rune('a'+i/26))+".service", "web.slice")
	}
	f.start("elsewhere.service", "other.slice")
	r := run(t, o)
	r.await("named", func(s *Snapshot) bool {
		named := 0
		for _, c := range s.Cgroups {
			if c.Member && c.Unit != "" && c.Description() == "the unit "+c.Unit && c.InvocationID() == "30313233343536373839616263646566" {
				named++
			}
		}
		return named == 30
	})
	r.stats("all answered", func(s Stats) bool { return s.Calls >= 3 }) // Subscribe, and two lists
	if c, _ := r.last.find("/web.slice/mkdir.service"); c.Unit != "" || c.InvocationID() != "" {
		t.Errorf("a directory that systemd does not know: %+v", c)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	paced(t, f.lists)
	for _, name := range f.asked {
		if name == "elsewhere.service" || strings.ContainsAny(name, "*?[") {
			t.Errorf("asked for %q", name)
		}
	}
}

// A systemd that does not answer is left alone for a while, the log says it once, and
// the names come when it does answer.
func TestNamesAfterAnError(t *testing.T) {
	f := newFakeSystemd(t)
	o := f.options()
	log := &logged{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	o.Tree = compile(t, group("web", "/web.slice"))
	f.deaf = true
	f.start("a.service", "web.slice")
	r := run(t, o)
	r.stats("refused twice", func(s Stats) bool { return s.CallErrors >= 2 })
	f.mu.Lock()
	f.deaf = false
	asked := slices.Clone(f.lists)
	f.mu.Unlock()
	if apart := asked[1].Sub(asked[0]); apart < namesRetry-20*time.Millisecond {
		t.Errorf("asked again after %v", apart)
	}
	r.await("named", func(s *Snapshot) bool {
		c, _ := s.find("/web.slice/a.service")
		return c.Description() == "the unit a.service"
	})
	if n := strings.Count(log.String(), "names of units"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
}

// logged is what a log says.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// hungBus accepts everything and never says anything.
type hungBus struct {
	net.Conn
	far net.Conn
}

func newHungBus() *hungBus {
	near, far := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, far) }() // ends when near is closed
	return &hungBus{near, far}
}

func TestHungBusIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		count := &counters{}
		dials := 0
		b := newBus(Options{Log: discard, Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
			dials++
			return newHungBus(), nil
		}}, newInbox(), count)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.run(ctx) }()
		time.Sleep(time.Minute) // of the bubble's clock
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if dials < 10 || dials > 12 { // a call's deadline each, and half a second between
			t.Errorf("%d connections in a minute", dials)
		}
	})
}

func TestBackoffOfConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		in := newInbox()
		b := newBus(Options{Log: discard, Dial: func(ctx context.Context) (io.ReadWriteCloser, error) {
			dials++
			return nil, errors.New("refused")
		}}, in, &counters{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := b.run(ctx); err != nil {
			t.Error(err)
		}
		if dials < 100 || dials > 160 {
			t.Errorf("%d connections in a minute", dials)
		}
		if m := in.take(); m.mode != CgroupfsOnly || m.cause != "no message bus: refused" {
			t.Errorf("mail %+v", m)
		}
	})
}

func TestInbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newInbox()
		in.state(Bus, "", "")
		in.take()
		in.reloading(true)
		for range 100 {
			in.unit("a.service")
		}
		if m := in.take(); len(m.units) != 0 || m.resync != "" {
			t.Errorf("while reloading: %+v", m)
		}
		in.reloading(false)
		if m := in.take(); m.resync != "systemd reloaded" || m.reloads != 1 {
			t.Errorf("after reloading: %+v", m)
		}
		in.reloading(true) // and never ends
		time.Sleep(reloadTimeout)
		in.unit("a.service")
		if m := in.take(); len(m.units) != 1 {
			t.Errorf("a reload that does not end: %+v", m)
		}
		in.reloading(true) // ended by another systemd
		in.state(Bus, "", "owner")
		in.unit("a.service")
		if m := in.take(); len(m.units) != 1 || m.resync != "owner" {
			t.Errorf("a new owner: %+v", m)
		}
		overflows := 0
		for i := range 3 * maxUnits { // edge T17
			if !in.unit(strings.Repeat("x", i%1500) + "u.service") {
				overflows++
			}
		}
		if m := in.take(); len(m.units) != maxUnits || m.resync == "" || overflows == 0 {
			t.Errorf("%d units, resync %q, %d overflows", len(m.units), m.resync, overflows)
		}
	})
}
