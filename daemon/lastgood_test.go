package daemon

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
)

func TestLastGood(t *testing.T) {
	write := func(generation uint64, text string) fdstore.FD {
		l := &lastGood{Generation: generation, Path: "/etc/slicelb", TOML: text}
		f, err := l.seal()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if _, err := f.WriteAt([]byte("x"), 0); err == nil {
			t.Error("a sealed state can be written")
		}
		if err := f.Truncate(0); err == nil {
			t.Error("a sealed state can be cut")
		}
		return fdstore.FD{Name: l.name(), FD: int(f.Fd())}
	}
	old, newer := write(9, "old"), write(10, "newer")
	open := fdstoretest.Memfd(t, "state-v1.11")
	later := fdstoretest.Memfd(t, "state-v2.1")
	got, err := newestLastGood([]fdstore.FD{newer, open, old, later, {Name: "slb1-x-map-y", FD: -1}})
	if got == nil || got.TOML != "newer" || got.Generation != 10 {
		t.Errorf("got %+v", got)
	}
	if err == nil || !strings.Contains(err.Error(), "state-v1.11: not sealed") {
		t.Errorf("error: %v", err)
	}
	if n := highestGeneration([]fdstore.FD{newer, open, old}); n != 11 {
		t.Errorf("highest generation %d", n)
	}
	if got, err := newestLastGood(nil); got != nil || err != nil {
		t.Errorf("of nothing: %v, %v", got, err)
	}
}

// fault F27
func FuzzLastGood(f *testing.F) {
	f.Add([]byte(`{"version":1,"generation":3,"toml":""}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		fd, err := unix.MemfdCreate("fuzz", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if _, err := unix.Write(fd, b); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != nil {
			t.Fatal(err)
		}
		l, err := readLastGood(fd)
		if err == nil && l.Version != lastGoodVersion {
			t.Errorf("read version %d", l.Version)
		}
	})
}

// leftGood is what a process hands over that served toml last.
func leftGood(t *testing.T, path, toml string) fdstore.FD {
	t.Helper()
	l := &lastGood{Generation: 1, Path: path, Files: []string{path}, TOML: toml}
	f, err := l.seal()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fdstore.FD{Name: l.name(), FD: fd}
}
