package unitwatch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// world is a cgroup tree of a test's own; it tells a watcher about changes in
// one of the ways in which a watcher can learn of them.
type world struct {
	t     testing.TB
	root  string
	hints chan Hint // nil: the watcher must find out by itself
}

func (w *world) path(rel string) string { return filepath.Join(w.root, rel) }

func (w *world) mkdir(rel string) uint64 {
	w.t.Helper()
	id := mkdir(w.t, w.path(rel))
	w.hint(Hint{ID: id, Parent: cgroupID(w.t, filepath.Dir(w.path(rel))), Kind: HintMkdir})
	return id
}

func (w *world) mkdirAll(rel string) {
	w.t.Helper()
	at := ""
	for part := range strings.SplitSeq(strings.Trim(rel, "/"), "/") {
		at += "/" + part
		if _, err := os.Stat(w.path(at)); err != nil {
			w.mkdir(at)
		}
	}
}

func (w *world) rmdir(rel string) {
	w.t.Helper()
	id, parent := cgroupID(w.t, w.path(rel)), cgroupID(w.t, filepath.Dir(w.path(rel)))
	if err := os.Remove(w.path(rel)); err != nil {
		w.t.Fatal(err)
	}
	w.hint(Hint{ID: id, Parent: parent, Kind: HintRmdir})
}

func (w *world) hint(h Hint) {
	if w.hints != nil {
		w.hints <- h
	}
}

// inEachWay runs a test with a watcher that is hinted, and with one that only
// has its clock.
func inEachWay(t *testing.T, test func(t *testing.T, w *world, o Options)) {
	t.Run("hints", func(t *testing.T) {
		w := &world{t: t, root: ownCgroup(t), hints: make(chan Hint, 64)}
		test(t, w, Options{CgroupRoot: w.root, Hints: w.hints, Resync: time.Hour})
	})
	t.Run("clock", func(t *testing.T) {
		w := &world{t: t, root: ownCgroup(t)}
		test(t, w, Options{CgroupRoot: w.root, Resync: 10 * time.Millisecond})
	})
}

// edge T1
func TestDeepestAnchorWins(t *testing.T) {
	inEachWay(t, func(t *testing.T, w *world, o Options) {
		o.Tree = compile(t, group("a", "/a.slice"), group("ab", "/a.slice/a-b.slice"))
		w.mkdirAll("/a.slice/x.scope/container")
		w.mkdirAll("/a.slice/a-b.slice/y.service")
		w.mkdirAll("/a.slice/a-c.slice/a-c-d.slice/z.service/payload")
		w.mkdirAll("/b.slice/a-b.slice/q.scope")
		run(t, o).lines("all mapped",
			"/a.slice anchor a",
			"/a.slice/a-b.slice anchor ab",
			"/a.slice/a-b.slice/y.service member ab",
			"/a.slice/a-c.slice/a-c-d.slice/z.service member a",
			"/a.slice/x.scope member a",
		)
	})
}

// edge T2: a slice that systemd does not know, with its scopes; edge T5: pending
// until it is there
func TestPendingAnchorAppears(t *testing.T) {
	inEachWay(t, func(t *testing.T, w *world, o Options) {
		o.Tree = compile(t, group("share", "/nomad.slice/share.slice"), group("web", "/web-*.slice"))
		r := run(t, o)
		r.lines("nothing there", "/nomad.slice/share.slice pending", "/web-*.slice pending")
		w.mkdir("/nomad.slice")
		r.lines("on the way", "/nomad.slice way ", "/nomad.slice/share.slice pending", "/web-*.slice pending")
		id := w.mkdir("/nomad.slice/share.slice")
		w.mkdir("/nomad.slice/share.slice/alloc.task.scope")
		w.mkdir("/web-1.slice")
		s := r.lines("mapped",
			"/nomad.slice way ",
			"/nomad.slice/share.slice anchor share",
			"/nomad.slice/share.slice/alloc.task.scope member share",
			"/web-1.slice anchor web",
		)
		if c, _ := s.find("/nomad.slice/share.slice"); c.ID != id || c.Unit != "" {
			t.Errorf("anchor %+v, want id %d and no unit: systemd's share.slice is elsewhere", c, id)
		}
	})
}

// edge T4: a slice that was stopped and started has another id; edge T16: so
// has a unit that was restarted at the same path
func TestSamePathNewID(t *testing.T) {
	inEachWay(t, func(t *testing.T, w *world, o Options) {
		o.Tree = compile(t, group("web", "/web.slice"))
		first := w.mkdir("/web.slice")
		w.mkdir("/web.slice/a.service")
		r := run(t, o)
		r.lines("mapped", "/web.slice anchor web", "/web.slice/a.service member web")
		for range 20 {
			w.rmdir("/web.slice/a.service")
			w.rmdir("/web.slice")
			second := w.mkdir("/web.slice")
			service := w.mkdir("/web.slice/a.service")
			if first == second {
				t.Fatal("the kernel used an id twice")
			}
			r.await("new ids", func(s *Snapshot) bool {
				slice, _ := s.find("/web.slice")
				member, _ := s.find("/web.slice/a.service")
				for _, c := range s.Cgroups {
					if c.ID == first {
						return false
					}
				}
				return slice.ID == second && member.ID == service
			})
			first = second
		}
	})
}

// edge T6
func TestNestedSystemdIsNotTheHost(t *testing.T) {
	inEachWay(t, func(t *testing.T, w *world, o Options) {
		o.Tree = compile(t, group("sys", "/system.slice"), group("glob", "/machine.slice/*.slice"))
		w.mkdirAll("/system.slice/a.service")
		w.mkdirAll("/lxc.payload.c1/system.slice/x.service")
		w.mkdirAll("/machine.slice/systemd-nspawn@c.service/payload/system.slice/y.service")
		w.mkdirAll("/user.slice/user-1000.slice/user@1000.service/system.slice/z.service")
		r := run(t, o)
		r.lines("mapped",
			"/machine.slice way ",
			"/system.slice anchor sys",
			"/system.slice/a.service member sys",
			"/machine.slice/*.slice pending",
		)
	})
}

// What is configured within somebody else's tree is found there, but is no unit
// of systemd's.
func TestMembersOfOthers(t *testing.T) {
	inEachWay(t, func(t *testing.T, w *world, o Options) {
		o.Tree = compile(t,
			group("c1", "/lxc.payload.*"),
			group("user", "/user.slice/user-*.slice/user@*.service/user.slice")) // edge T20
		w.mkdirAll("/lxc.payload.c1/system.slice/x.service/deep")
		w.mkdirAll("/lxc.payload.c1/init.scope")
		w.mkdirAll("/lxc.payload.c1/bare/deeper")
		w.mkdirAll("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-1.scope/container")
		s := run(t, o).lines("mapped",
			"/lxc.payload.c1 anchor c1",
			"/lxc.payload.c1/bare member c1",
			"/lxc.payload.c1/init.scope member c1",
			"/lxc.payload.c1/system.slice/x.service member c1",
			"/user.slice way ",
			"/user.slice/user-1000.slice way ",
			"/user.slice/user-1000.slice/user@1000.service way ",
			"/user.slice/user-1000.slice/user@1000.service/user.slice anchor user",
			"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-1.scope member user",
		)
		for _, c := range s.Cgroups {
			if c.Unit != "" {
				t.Errorf("%s is called unit %q", c.Path, c.Unit)
			}
		}
	})
}

// edge T19
func TestEscapedNames(t *testing.T) {
	inEachWay(t, func(t *testing.T, w *world, o Options) {
		var patterns []string
		for _, unit := range []string{`foo\x2dbar.slice`, "cpu.slice"} {
			p, err := anchor.FromUnit(unit)
			if err != nil {
				t.Fatal(err)
			}
			patterns = append(patterns, p)
		}
		o.Tree = compile(t, group("g", patterns...), group("u", "/user@1000.service"))
		w.mkdirAll(`/foo\x2dbar.slice/_cgroup.service`)
		w.mkdirAll("/_cpu.slice/a b\x01\xff.scope")
		w.mkdirAll("/user@1000.service")
		s := run(t, o).lines("mapped",
			"/_cpu.slice anchor g",
			"/_cpu.slice/a b\x01\xff.scope member g",
			`/foo\x2dbar.slice anchor g`,
			`/foo\x2dbar.slice/_cgroup.service member g`,
			"/user@1000.service anchor u",
		)
		if len(s.Pending) > 0 {
			t.Errorf("pending: %q", s.Pending)
		}
	})
}

func TestSplit(t *testing.T) {
	inEachWay(t, func(t *testing.T, w *world, o Options) {
		o.Tree = compile(t,
			anchor.Group{Name: "jobs", Patterns: []string{"/nomad.slice"}, Split: "*.scope"},
			group("own", "/nomad.slice/share.slice/own"))
		w.mkdirAll("/nomad.slice/share.slice/a.scope/inner.scope")
		w.mkdirAll("/nomad.slice/share.slice/own/x.scope")
		w.mkdirAll("/nomad.slice/s.service/sub")
		r := run(t, o)
		r.lines("split",
			"/nomad.slice anchor jobs",
			"/nomad.slice/s.service member jobs",
			"/nomad.slice/s.service/sub way jobs",
			"/nomad.slice/share.slice way jobs",
			"/nomad.slice/share.slice/a.scope split jobs/a.scope",
			"/nomad.slice/share.slice/own anchor own",
			"/nomad.slice/share.slice/own/x.scope member own",
		)
		w.mkdirAll("/nomad.slice/s.service/sub/a.scope")
		w.mkdirAll("/nomad.slice/reserve.slice/b.scope")
		r.lines("two of one name",
			"/nomad.slice anchor jobs",
			"/nomad.slice/reserve.slice way jobs",
			"/nomad.slice/reserve.slice/b.scope split jobs/b.scope",
			"/nomad.slice/s.service member jobs",
			"/nomad.slice/s.service/sub way jobs",
			"/nomad.slice/s.service/sub/a.scope split jobs/sub/a.scope",
			"/nomad.slice/share.slice way jobs",
			"/nomad.slice/share.slice/a.scope split jobs/share.slice/a.scope",
			"/nomad.slice/share.slice/own anchor own",
			"/nomad.slice/share.slice/own/x.scope member own",
		)
	})
}

func TestRootIsAnAnchor(t *testing.T) {
	inEachWay(t, func(t *testing.T, w *world, o Options) {
		o.Tree = compile(t, group("all", "/"), group("web", "/web.slice"))
		w.mkdirAll("/web.slice/a.scope")
		w.mkdirAll("/x.slice/b.service/c")
		w.mkdirAll("/bare/d")
		s := run(t, o).lines("mapped",
			"/ anchor all",
			"/bare member all",
			"/web.slice anchor web",
			"/web.slice/a.scope member web",
			"/x.slice/b.service member all",
		)
		if want := cgroupID(t, w.root); s.Root != want || s.Cgroups[0].ID != want {
			t.Errorf("root %d and %d, want %d", s.Root, s.Cgroups[0].ID, want)
		}
	})
}

// The parent's hint may come after its child's, and any hint before the
// directory can be seen.
func TestHintsInAnyOrder(t *testing.T) {
	w := &world{t: t, root: ownCgroup(t), hints: make(chan Hint, 64)}
	r := run(t, Options{CgroupRoot: w.root, Hints: w.hints, Resync: time.Hour, Tree: compile(t, group("a", "/a.slice"))})
	r.lines("empty", "/a.slice pending")
	root := cgroupID(t, w.root)
	quiet := *w
	quiet.hints = nil

	slice := quiet.mkdir("/a.slice")
	scope := quiet.mkdir("/a.slice/a.scope")
	w.hint(Hint{ID: scope, Parent: slice, Kind: HintMkdir})
	w.hint(Hint{ID: slice, Parent: root, Kind: HintMkdir})
	r.lines("child first", "/a.slice anchor a", "/a.slice/a.scope member a")

	// ids only grow: this one will be that of a directory made soon
	quiet.mkdir("/probe")
	w.hint(Hint{ID: cgroupID(t, w.path("/probe")) + 1<<20, Parent: slice, Kind: HintMkdir})
	w.hint(Hint{ID: 1 << 60, Parent: 1 << 61, Kind: HintMkdir})
	w.hint(Hint{ID: 1 << 60, Parent: slice, Kind: HintRmdir})
	quiet.mkdir("/a.slice/late.scope") // between the first try and the last
	r.lines("late", "/a.slice anchor a", "/a.slice/a.scope member a", "/a.slice/late.scope member a")

	// edge T17
	quiet.mkdir("/a.slice/lost.scope")
	w.hint(Hint{Kind: HintLost})
	r.lines("resync", "/a.slice anchor a", "/a.slice/a.scope member a", "/a.slice/late.scope member a", "/a.slice/lost.scope member a")
	r.stats("a walk for the overflow", func(s Stats) bool {
		return s.Overflows == 1 && s.Walks == 2 && s.LastResyncCause == "lost events"
	})

	// Who asks for a walk is told when there was one, though it found nothing.
	asked := time.Now()
	w.hint(Hint{Kind: HintLost})
	r.await("an answer", func(s *Snapshot) bool { return s.Complete && s.Walked.After(asked) })
}

// A snapshot says when the oldest event happened of what is new in it, whether or
// not an earlier snapshot was taken.
func TestHinted(t *testing.T) {
	w := &world{t: t, root: ownCgroup(t), hints: make(chan Hint, 64)}
	slice := mkdir(t, w.path("/a.slice"))
	r := run(t, Options{CgroupRoot: w.root, Hints: w.hints, Resync: time.Hour, Tree: compile(t, group("a", "/a.slice"))})
	if s := r.lines("start", "/a.slice anchor a"); !s.Hinted.IsZero() {
		t.Errorf("nothing was hinted, but %v", s.Hinted)
	}
	first := time.Now()
	for i, name := range []string{"x.scope", "y.scope"} {
		id := mkdir(t, w.path("/a.slice/"+name))
		w.hint(Hint{ID: id, Parent: slice, Kind: HintMkdir, At: first.Add(time.Duration(i) * time.Second)})
		r.stats("both are in a snapshot", func(s Stats) bool { return s.Members == i+1 })
	}
	s := r.lines("both", "/a.slice anchor a", "/a.slice/x.scope member a", "/a.slice/y.scope member a")
	if !s.Hinted.Equal(first) {
		t.Errorf("hinted %v, want %v", s.Hinted, first)
	}
	w.rmdir("/a.slice/x.scope")
	if s := r.lines("one is gone", "/a.slice anchor a", "/a.slice/y.scope member a"); !s.Hinted.IsZero() {
		t.Errorf("nothing is new, but %v", s.Hinted)
	}
}

// What is made in a new directory before the kernel has that one's entry is announced
// by nobody: it is found soon, and no hint was lost.
func TestChildrenOfNewDirectories(t *testing.T) {
	w := &world{t: t, root: ownCgroup(t), hints: make(chan Hint, 64)}
	r := run(t, Options{CgroupRoot: w.root, Hints: w.hints, Resync: time.Hour, Tree: compile(t,
		anchor.Group{Name: "a", Patterns: []string{"/a-?.slice"}, Split: "*.scope"})})
	r.lines("start", "/a-?.slice pending")
	for range 20 {
		w.mkdir("/a-1.slice")
		r.lines("the slice", "/a-1.slice anchor a")
		mkdir(t, w.path("/a-1.slice/x.scope"))
		r.lines("and what is in it", "/a-1.slice anchor a", "/a-1.slice/x.scope split a/x.scope")
		w.rmdir("/a-1.slice/x.scope")
		w.rmdir("/a-1.slice")
		r.lines("gone", "/a-?.slice pending")
	}
	if s := r.Stats(); s.HintsLost != 0 || s.Walks != 1 {
		t.Errorf("%+v", s)
	}
}

// A difference that no hint announced is a lost hint.
func TestLostHintsAreCounted(t *testing.T) {
	w := &world{t: t, root: ownCgroup(t), hints: make(chan Hint, 64)}
	mkdir(t, w.path("/a.slice"))
	r := run(t, Options{CgroupRoot: w.root, Hints: w.hints, Resync: 50 * time.Millisecond, Tree: compile(t, group("a", "/a.slice"))})
	r.lines("there", "/a.slice anchor a")
	mkdir(t, w.path("/a.slice/lost.scope"))
	r.lines("found", "/a.slice anchor a", "/a.slice/lost.scope member a")
	r.stats("one hint lost", func(s Stats) bool { return s.HintsLost == 1 })
}

// edge T18
func TestVanishingDirectories(t *testing.T) {
	inEachWay(t, func(t *testing.T, w *world, o Options) {
		w.mkdirAll("/a.slice/stays.scope")
		o.Tree = compile(t, group("a", "/a.slice"))
		o.Resync = time.Millisecond
		r := run(t, o)
		stop, done := make(chan struct{}), make(chan int)
		go func() {
			n := 0
			for ; ; n++ {
				select {
				case <-stop:
					done <- n
					return
				default:
				}
				for _, d := range []string{"/a.slice/a-x.slice", "/a.slice/a-x.slice/a-x-y.slice", "/a.slice/a-x.slice/a-x-y.slice/z.scope"} {
					_ = os.Mkdir(w.path(d), 0o755)
				}
				for _, d := range []string{"/a.slice/a-x.slice/a-x-y.slice/z.scope", "/a.slice/a-x.slice/a-x-y.slice", "/a.slice/a-x.slice"} {
					_ = os.Remove(w.path(d))
				}
			}
		}()
		r.await("many walks", func(s *Snapshot) bool {
			if !s.Complete {
				t.Errorf("incomplete: %s", s.Cause)
			}
			if _, ok := s.find("/a.slice/stays.scope"); !ok {
				t.Errorf("lost what stayed: %q", show(s))
			}
			return r.Stats().Walks > 30
		})
		close(stop)
		t.Logf("%d rounds of making and removing, %+v", <-done, r.Stats())
		r.lines("at the end", "/a.slice anchor a", "/a.slice/stays.scope member a")
	})
}

// What lies in a delegated directory may be of others than root, however deep; a
// directory that is delegated later makes what it has theirs.
// edge T24
func TestForeign(t *testing.T) {
	inEachWay(t, func(t *testing.T, w *world, o Options) {
		w.mkdirAll("/a.slice/own.service/x")
		w.mkdirAll("/a.slice/user.slice/deep.slice/y.scope")
		w.mkdirAll("/a.slice/z.scope")
		if err := os.Chown(w.root+"/a.slice/user.slice", 65534, 65534); err != nil {
			t.Fatal(err)
		}
		o.Tree = compile(t, anchor.Group{Name: "a", Patterns: []string{"/a.slice", "/a.slice/later.slice"}, Split: "*.scope"})
		r := run(t, o)
		foreign := func(s *Snapshot) string {
			var out []string
			for _, c := range s.Cgroups {
				if c.Foreign {
					out = append(out, c.Path)
				}
			}
			return strings.Join(out, " ")
		}
		const first = "/a.slice/user.slice/deep.slice /a.slice/user.slice/deep.slice/y.scope"
		s := r.await("walked", func(s *Snapshot) bool { return s.Complete })
		if got := foreign(s); got != first {
			t.Errorf("foreign: %s", got)
		}
		w.mkdir("/a.slice/later.slice")
		if err := os.Chown(w.root+"/a.slice/later.slice", 65534, 65534); err != nil {
			t.Fatal(err)
		}
		w.mkdir("/a.slice/later.slice/q.scope")
		r.await("delegated later", func(s *Snapshot) bool {
			return foreign(s) == "/a.slice/later.slice/q.scope "+first
		})
	})
}

// So it does with what lies deeper and has not changed, however it is noticed.
// edge T24
func TestForeignBelow(t *testing.T) {
	w := &world{t: t, root: ownCgroup(t)}
	w.mkdirAll("/a.slice/b.slice/c.slice/m.scope")
	h := watching(t, w.root, anchor.Group{Name: "a", Patterns: []string{"/a.slice"}, Split: "*.scope"})
	h.walkAll()
	for _, s := range []struct {
		owner int
		how   func(a *dir)
		want  int
	}{
		{0, func(*dir) { h.walkAll() }, 0},
		{65534, func(*dir) { h.walkAll() }, 3},
		{0, func(a *dir) { h.look(a) }, 0},
		{65534, func(a *dir) { h.rename(a) }, 3},
	} {
		if err := os.Chown(w.path("/a.slice"), s.owner, s.owner); err != nil {
			t.Fatal(err)
		}
		before := foreigners(h.snapshot())
		h.begin()
		h.changed = false
		s.how(h.byUnit["a.slice"])
		if got := foreigners(h.snapshot()); h.err != nil || got != s.want || h.changed != (got != before) {
			t.Errorf("owner %d: %d foreign, want %d, changed %t, %v", s.owner, got, s.want, h.changed, h.err)
		}
	}
}

func foreigners(s *Snapshot) (n int) {
	for _, c := range s.Cgroups {
		if c.Foreign {
			n++
		}
	}
	return n
}

// edge T22: the watcher's half: the old groups until the new ones are whole.
func TestSetTree(t *testing.T) {
	inEachWay(t, func(t *testing.T, w *world, o Options) {
		w.mkdirAll("/a.slice/x.scope")
		w.mkdirAll("/b.slice/y.scope")
		o.Tree = compile(t, group("one", "/a.slice"))
		r := run(t, o)
		r.lines("first", "/a.slice anchor one", "/a.slice/x.scope member one")
		next := compile(t, group("two", "/a.slice", "/b.slice", "/c.slice"))
		r.SetTree(next)
		s := r.await("second", func(s *Snapshot) bool {
			if s.Tree == o.Tree && len(show(s)) != 2 {
				t.Errorf("half way: %q", show(s))
			}
			return s.Tree == next
		})
		if got := strings.Join(show(s), ", "); got != "/a.slice anchor two, /a.slice/x.scope member two, /b.slice anchor two, /b.slice/y.scope member two, /c.slice pending" {
			t.Error(got)
		}
		w.mkdir("/c.slice")
		r.await("still watching", func(s *Snapshot) bool { return len(s.Pending) == 0 })
	})
}

// edge T14: hints beyond all bounds.
func TestStormOfHints(t *testing.T) {
	w := &world{t: t, root: ownCgroup(t), hints: make(chan Hint, 4096)}
	w.mkdirAll("/a.slice")
	slice := cgroupID(t, w.path("/a.slice"))
	r := run(t, Options{CgroupRoot: w.root, Hints: w.hints, Resync: time.Hour, Tree: compile(t, group("a", "/a.slice"))})
	r.lines("start", "/a.slice anchor a")
	for i := range uint64(100_000) {
		parent := slice
		if i%2 == 0 {
			parent = 1<<50 + i // nobody's
		}
		w.hint(Hint{ID: 1<<40 + i, Parent: parent, Kind: HintMkdir})
	}
	mkdir(t, w.path("/a.slice/x.scope"))
	w.hint(Hint{ID: cgroupID(t, w.path("/a.slice/x.scope")), Parent: slice, Kind: HintMkdir})
	r.lines("after the storm", "/a.slice anchor a", "/a.slice/x.scope member a")
	r.stats("all taken", func(s Stats) bool { return s.Hints > 100_000 })
	if s := r.Stats(); s.Looks > 10_000 {
		t.Errorf("stats %+v", s)
	}
}

func TestRootThatCannotBeUsed(t *testing.T) {
	for _, path := range []string{t.TempDir(), "/nonexistent", "/dev/null"} {
		err := New(Options{CgroupRoot: path, Tree: compile(t), Dial: noBus}).Run(t.Context())
		if _, ok := err.(*RootError); !ok {
			t.Errorf("%s: error %v, want a RootError", path, err)
		}
	}
}
