package unitwatch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMatchUnit(t *testing.T) {
	for _, tt := range []struct {
		pattern, unit string
		want          bool
	}{
		{"web.service", "web.service", true},
		{"web.service", "webx.service", false},
		{"web@*.service", "web@1.service", true},
		{"web@*.service", "web@.service", true},
		{"web@*.service", "web@1.socket", false},
		{"web@*.service", "aweb@1.service", false},
		{"*", "web@1.service", true},
		{"w*b@*.service", "wb@x.y.service", true},
		{"w*b@*.service", "w@x.service", false},
		{"a*a", "a", false},
		{"a*b*b", "ab", false},
		{"a*b*b", "axbyb", true},
		{`a\x2d*.service`, `a\x2db.service`, true},
	} {
		if got := MatchUnit(tt.pattern, tt.unit); got != tt.want {
			t.Errorf("%s, %s: %v", tt.pattern, tt.unit, got)
		}
	}
}

// Many patterns: a name is found among them as MatchUnit says, and systemd is asked
// for few.
func TestUnitNames(t *testing.T) {
	var patterns []string
	for i := range 500 {
		patterns = append(patterns, fmt.Sprintf("plain%d.service", i), fmt.Sprintf("t%d@*.socket", i), fmt.Sprintf("*-%d.service", i))
	}
	n := newUnitNames(patterns)
	for _, unit := range []string{"plain7.service", "plain500.service", "t3@x.socket", "t3@x.service", "t@x.socket", "a-499.service", "-1.service", "a-500.service", "t499@.socket", ""} {
		want := slices.ContainsFunc(patterns, func(p string) bool { return MatchUnit(p, unit) })
		if got := n.match(unit); got != want {
			t.Errorf("%q: %v, want %v", unit, got, want)
		}
	}
	if want := []string{"*service", "*socket"}; !slices.Equal(n.broad, want) {
		t.Errorf("systemd is asked for %q, want %q", n.broad, want)
	}
	few := []string{"a.service", "b@*.service"}
	if n := newUnitNames(few); !slices.Equal(n.broad, few) {
		t.Errorf("systemd is asked for %q, want %q", n.broad, few)
	}
}

func TestUnitOfPath(t *testing.T) {
	for _, unit := range []string{"web@8081.service", `a\x2db.service`, "1st.service", "a_b:c.scope"} {
		if got, ok := unitOfPath(string(objectOf(unit))); !ok || got != unit {
			t.Errorf("%s: %q %v", objectOf(unit), got, ok)
		}
	}
	for _, path := range []string{"/", "/org/freedesktop/systemd1/unit/", "/org/freedesktop/systemd1/unit/a_4", "/org/freedesktop/systemd1/unit/_zz", "/org/freedesktop/systemd1/unit/_20", "/org/freedesktop/systemd1/job/1"} {
		if unit, ok := unitOfPath(path); ok {
			t.Errorf("%s: %q", path, unit)
		}
	}
}

// units waits until the states of units are as said, "name state", sorted.
func (r *running) units(what string, want ...string) *Units {
	r.t.Helper()
	return r.unitsAre(what, func(u *Units) bool { return u.Cause == "" && slices.Equal(lines(u), want) })
}

func lines(u *Units) []string {
	out := make([]string, 0, len(u.List))
	for _, u := range u.List {
		out = append(out, u.Name+" "+u.State.String())
	}
	return out
}

func (r *running) unitsAre(what string, is func(*Units) bool) *Units {
	r.t.Helper()
	var last *Units
	for deadline := time.After(patience); ; {
		select {
		case last = <-r.Units():
			if is(last) {
				return last
			}
		case <-deadline:
			r.t.Fatalf("%s: not so within %v; the last: %+v", what, patience, last)
		}
	}
}

// A unit is listed by its state from its start to its stop, and systemd's
// reading its units again changes nothing. edge T7
func TestUnitStates(t *testing.T) {
	onSystemd(t, func(t *testing.T, s systemd) {
		o := s.options()
		o.Tree = compile(t, group("web", "/ust.slice"))
		r := run(t, o)
		patterns := []string{"ust@*.service", "ust-one.service"}
		r.SetUnits(patterns)
		if u := r.units("none"); !slices.Equal(u.Patterns, patterns) {
			t.Errorf("patterns %q", u.Patterns)
		}
		s.start("ust@8081.service", "ust.slice")
		first := r.units("one", "ust@8081.service active")
		if u := first.List[0]; u.Sub != "running" || u.Since.IsZero() {
			t.Errorf("%+v", u)
		}
		s.start("ust-one.service", "ust.slice")
		s.start("other.service", "ust.slice")
		two := r.units("two", "ust-one.service active", "ust@8081.service active")
		for _, u := range two.List {
			if len(u.Invocation) != 32 {
				t.Errorf("%+v: no invocation", u)
			}
		}
		before := r.Stats()
		s.reload()
		r.stats("systemd has read its units again, and was asked", func(st Stats) bool { return st.LastResyncCause == "systemd reloaded" && st.Calls > before.Calls })
		select {
		case u := <-r.Units():
			t.Errorf("after a reload: %q", lines(u))
		default:
		}
		s.stop("ust@8081.service")
		r.units("stopped", "ust-one.service active")
		s.start("ust@8081.service", "ust.slice")
		again := r.unitsAre("started again", func(u *Units) bool { return len(u.List) == 2 && u.List[1].Invocation != "" })
		if u := again.List[1]; u.Since.Equal(first.List[0].Since) {
			t.Errorf("since %v, as in its run before", u.Since)
		}

		r.SetUnits(nil)
		r.unitsAre("nothing is wanted", func(u *Units) bool { return len(u.Patterns) == 0 && len(u.List) == 0 })
	})
}

// What happens without a job, such as a crash, is seen by systemd's own word of
// changed properties, and only of units that are wanted.
func TestUnitTurns(t *testing.T) {
	f := newFakeSystemd(t)
	o := f.options()
	o.Tree = compile(t, group("web", "/web.slice"))
	r := run(t, o)
	r.SetUnits([]string{"web@*.service"})
	f.start("web@1.service", "web.slice")
	r.units("active", "web@1.service active")
	for _, state := range []string{"reloading", "deactivating", "activating", "failed", "active"} {
		f.turn("web@1.service", state)
		r.units(state, "web@1.service "+state)
	}
	// systemd calls activating, too, what waits to be restarted.
	for _, sub := range []string{"auto-restart", "auto-restart-queued"} {
		f.turn("web@1.service", sub)
		if u := r.units(sub, "web@1.service auto-restart"); u.List[0].Invocation != "" {
			t.Errorf("%+v: nothing runs", u.List[0])
		}
		f.turn("web@1.service", "active")
		r.units("active", "web@1.service active")
	}
	// What systemd has a job for comes again; so does what a job is yet to start.
	for _, tt := range []struct {
		said string
		want string
		job  bool
	}{
		{"deactivating+restart", "deactivating", true}, {"inactive+start", "activating", true},
		{"deactivating+stop", "deactivating", false}, {"activating+start", "activating", false}, {"active+restart", "active", false},
	} {
		f.turn("web@1.service", tt.said)
		r.unitsAre(tt.said, func(u *Units) bool {
			return len(u.List) == 1 && u.List[0].State.String() == tt.want && u.List[0].StartJob == tt.job
		})
	}

	f.turn("web@1.service", "inactive")
	r.units("inactive")
	f.turn("web@1.service", "active")

	// A restart between two looks shows by the run alone.
	one := r.unitsAre("active", func(u *Units) bool { return len(u.List) == 1 && u.List[0].Invocation != "" }).List[0]
	f.mu.Lock()
	f.runs = map[string]byte{"web@1.service": 1}
	f.mu.Unlock()
	f.changed("web@1.service")
	two := r.unitsAre("another run", func(u *Units) bool { return len(u.List) == 1 && u.List[0].Invocation != one.Invocation }).List[0]
	if two.State != UnitActive || !two.Since.After(one.Since) {
		t.Errorf("%+v after %+v", two, one)
	}

	before := r.Stats()
	for range 100 {
		f.changed("other.service")
	}
	f.changed("web@1.service")
	r.stats("asked", func(s Stats) bool { return s.Calls > before.Calls })
	if n := r.Stats().Signals - before.Signals; n != 1 {
		t.Errorf("%d signals were looked at, want 1", n)
	}
}

// The last known state stays while the bus or systemd is away, and whatever
// changed meanwhile is found when they are back. fault F9, fault F10
func TestUnitsWithoutBus(t *testing.T) {
	f := newFakeSystemd(t)
	o := f.options()
	o.Tree = compile(t, group("web", "/web.slice"))
	r := run(t, o)
	r.SetUnits([]string{"web@*.service"})
	f.start("web@1.service", "web.slice")
	r.units("active", "web@1.service active")
	f.bus.stop()
	away := r.unitsAre("away", func(u *Units) bool { return u.Cause != "" })
	if got := lines(away); !slices.Equal(got, []string{"web@1.service active"}) {
		t.Errorf("while the bus is away: %q", got)
	}
	f.mu.Lock()
	f.states = map[string]string{"web@1.service": "failed"}
	f.mu.Unlock()
	f.bus.start()
	f.claim()
	r.units("back", "web@1.service failed")

	// An error is told, and asked about again.
	f.mu.Lock()
	f.deaf = true
	f.mu.Unlock()
	f.turn("web@1.service", "active")
	if u := r.unitsAre("refused", func(u *Units) bool { return u.Cause != "" }); !strings.Contains(u.Cause, "not now") || lines(u)[0] != "web@1.service failed" {
		t.Errorf("%q because of %q", lines(u), u.Cause)
	}
	f.mu.Lock()
	f.deaf = false
	f.mu.Unlock()
	r.units("answered", "web@1.service active")
}

// A storm of changes asks systemd at most five times a second, and ends with
// the state that is so. fault F21
func TestUnitStorm(t *testing.T) {
	f := newFakeSystemd(t)
	o := f.options()
	o.Tree = compile(t, group("web", "/web.slice"))
	r := run(t, o)
	f.mu.Lock()
	want := []string{}
	for i := range 300 {
		name := fmt.Sprintf("web@%03d.service", i)
		f.units[name] = "/nowhere"
		want = append(want, name+" active")
	}
	f.mu.Unlock()
	r.SetUnits([]string{"web@*.service"})
	if u := r.units("all", want...); slices.ContainsFunc(u.List, func(u Unit) bool { return u.Invocation == "" }) {
		t.Errorf("a run is not known: %+v", u.List)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	for i := 0; ctx.Err() == nil; i++ {
		f.turn(fmt.Sprintf("web@%03d.service", i%300), []string{"failed", "active"}[i/300%2])
	}
	f.mu.Lock()
	clear(f.states)
	lists := slices.Clone(f.lists)
	f.mu.Unlock()
	f.changed("web@000.service")
	for i := range 300 {
		f.changed(fmt.Sprintf("web@%03d.service", i))
	}
	r.units("after the storm", want...)
	paced(t, lists)
}

// paced checks that lists were not asked for more often than each listInterval. What
// arrives late on a busy machine is one too many for the time that it was seen in.
func paced(t *testing.T, lists []time.Time) {
	t.Helper()
	if len(lists) == 0 {
		t.Fatal("nothing was asked")
	}
	span := lists[len(lists)-1].Sub(lists[0])
	if most := int(span/listInterval) + 2; len(lists) > most {
		t.Errorf("%d lists in %v, %d at most", len(lists), span, most)
	}
}
