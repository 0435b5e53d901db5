package unitwatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/lab/labtest"
	"github.com/slicelb/slicelb/internal/leftover"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

func TestMain(m *testing.M) {
	if os.Getenv(printRoot) != "" {
		printRootAndExit()
	}
	code := labtest.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// patience is how long what is waited for may take, on a machine that is busy.
const patience = time.Minute

// unable skips a test for a reason that must not exist in CI.
func unable(t testing.TB, reason any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// ownCgroup makes a directory of the machine's cgroup2 hierarchy that serves as
// a root, and removes it with all below it afterwards.
func ownCgroup(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		unable(t, "making cgroups needs root")
	}
	root, err := FindRoot()
	if err != nil {
		unable(t, err)
	}
	dir, err := leftover.MkdirTemp(root)
	if err != nil {
		unable(t, err)
	}
	t.Cleanup(func() { removeCgroups(t, dir) })
	return dir
}

func removeCgroups(t testing.TB, dir string) {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Errorf("remove cgroups: %v", err)
	}
	for _, d := range slices.Backward(dirs) {
		if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("remove cgroups: %v", err)
		}
	}
}

func mkdir(t testing.TB, path string) uint64 {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return cgroupID(t, path)
}

func cgroupID(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatalf("stat %s: %v", path, err)
	}
	return st.Ino
}

func compile(t testing.TB, groups ...anchor.Group) *anchor.Tree {
	t.Helper()
	tree, err := anchor.Compile(groups)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func group(name string, patterns ...string) anchor.Group {
	return anchor.Group{Name: name, Patterns: patterns}
}

var errNoBus = errors.New("no bus in this test")

func noBus(context.Context) (io.ReadWriteCloser, error) { return nil, errNoBus }

// running is a Watcher that runs until the test is over.
type running struct {
	*Watcher
	t    testing.TB
	last *Snapshot
}

func run(t testing.TB, o Options) *running {
	t.Helper()
	if o.Dial == nil {
		o.Dial = noBus
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	w := &running{Watcher: New(o), t: t}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return w
}

// await returns the first snapshot that is as wanted.
func (w *running) await(what string, ok func(*Snapshot) bool) *Snapshot {
	w.t.Helper()
	if w.last != nil && ok(w.last) {
		return w.last
	}
	deadline := time.After(patience)
	for {
		select {
		case s := <-w.Updates():
			w.last = s
			if ok(s) {
				return s
			}
		case <-deadline:
			var last string
			if w.last != nil {
				last = strings.Join(show(w.last), "\n") + "\ncause: " + w.last.Cause
			}
			w.t.Fatalf("%s: not after %v; the last snapshot:\n%s", what, patience, last)
		}
	}
}

// stats waits until the counts are as wanted.
func (w *running) stats(what string, ok func(Stats) bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !ok(w.Stats()); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: not after %v: %+v", what, patience, w.Stats())
		}
	}
}

// lines waits until a snapshot shows the wanted lines.
func (w *running) lines(what string, want ...string) *Snapshot {
	w.t.Helper()
	return w.await(what, func(s *Snapshot) bool { return s.Complete && slices.Equal(show(s), want) })
}

// show is a snapshot for people: a line for each cgroup but the root, which is
// there if it is an anchor, then what is pending.
func show(s *Snapshot) []string {
	var lines []string
	for _, c := range s.Cgroups {
		if c.Path == "/" && !c.Match.Anchor {
			continue
		}
		kind := "way"
		switch {
		case c.Match.Anchor:
			kind = "anchor"
		case c.Match.Split:
			kind = "split"
		case c.Member:
			kind = "member"
		}
		lines = append(lines, fmt.Sprintf("%s %s %s", c.Path, kind, c.Group))
	}
	for _, p := range s.Pending {
		lines = append(lines, p+" pending")
	}
	return lines
}

func (s *Snapshot) find(path string) (Cgroup, bool) {
	for _, c := range s.Cgroups {
		if c.Path == path {
			return c, true
		}
	}
	return Cgroup{}, false
}

func fromUnit(t testing.TB, unit string) string {
	t.Helper()
	path, err := anchor.FromUnit(unit)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
