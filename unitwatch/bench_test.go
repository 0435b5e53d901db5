package unitwatch

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// BenchmarkWalk walks 20,000 members below 100 anchors that are all known.
func BenchmarkWalk(b *testing.B) {
	root := ownCgroup(b)
	for i := range 100 {
		slice := filepath.Join(root, fmt.Sprintf("s%d.slice", i))
		mkdir(b, slice)
		for j := range 200 {
			if err := os.Mkdir(filepath.Join(slice, fmt.Sprintf("m%d.scope", j)), 0o755); err != nil {
				b.Skip(err) // the machine's limit of cgroups
			}
		}
	}
	h := watching(b, root, group("g", "/*.slice"))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begun := time.Now()
	h.walkAll()
	first := time.Since(begun)
	s := h.snapshot()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			h.begin()
			h.walkAll()
		}
		b.ReportMetric(float64(first.Milliseconds()), "first-ms")
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(s.Cgroups)), "heap-B/cgroup")
	})
	b.Run("look", func(b *testing.B) {
		d := h.top.children[0]
		for b.Loop() {
			h.begin()
			h.look(d)
		}
	})
	b.Run("snapshot", func(b *testing.B) {
		for b.Loop() {
			h.snapshot()
		}
	})
	if h.err != nil {
		b.Error(h.err)
	}
}

// BenchmarkResync is a look at 1,000 anchors that are all known, with a member each,
// and the snapshot of it.
func BenchmarkResync(b *testing.B) {
	root := ownCgroup(b)
	for i := range 1000 {
		slice := filepath.Join(root, fmt.Sprintf("s%d.slice", i))
		mkdir(b, slice)
		mkdir(b, filepath.Join(slice, "m.scope"))
	}
	h := watching(b, root, group("g", "/*.slice"))
	h.walkAll()
	for b.Loop() {
		h.begin()
		h.walkAll()
		h.snapshot()
	}
	if h.err != nil || len(h.byID) != 2001 {
		b.Errorf("%d directories, %v", len(h.byID), h.err)
	}
}

// BenchmarkForged is what a signal costs that is not systemd's.
func BenchmarkForged(b *testing.B) {
	one := string(encode(b, byteOrder('l'), ":1.99", "a.service", unitObject))
	bus := newBus(Options{Log: discard}, newInbox(), &counters{})
	bus.setOwner(":1.1")
	f := newFrames(stream{strings.NewReader(strings.Repeat(one, b.N+1)), io.Discard}, bus.accept)
	f.binary.Store(true)
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := f.Read(make([]byte, 1)); err != io.EOF {
		b.Fatal(err)
	}
}

// BenchmarkHintToSnapshot is the time from mkdir to a snapshot with the member.
func BenchmarkHintToSnapshot(b *testing.B) {
	root := ownCgroup(b)
	slice := mkdir(b, filepath.Join(root, "a.slice"))
	hints := make(chan Hint, 16)
	tree, err := anchor.Compile([]anchor.Group{{Name: "a", Patterns: []string{"/a.slice"}}})
	if err != nil {
		b.Fatal(err)
	}
	w := New(Options{CgroupRoot: root, Tree: tree, Hints: hints, Dial: noBus})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	<-w.Updates()
	i := 0
	for b.Loop() {
		i++
		path := filepath.Join(root, "a.slice", fmt.Sprintf("m%d.scope", i))
		if err := os.Mkdir(path, 0o755); err != nil {
			b.Fatal(err)
		}
		id := cgroupID(b, path)
		hints <- Hint{ID: id, Parent: slice, Kind: HintMkdir}
		for seen := false; !seen; {
			s := <-w.Updates()
			for _, c := range s.Cgroups {
				seen = seen || c.ID == id
			}
		}
		if err := os.Remove(path); err != nil {
			b.Fatal(err)
		}
		hints <- Hint{ID: id, Parent: slice, Kind: HintRmdir}
	}
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}
