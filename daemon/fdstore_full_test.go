package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A store that is full refuses, and says so to nobody: what it holds is not given
// up for what it may not have taken.
func TestFullStoreKeepsTheOld(t *testing.T) {
	m := newManager(t)
	m.mu.Lock()
	m.max = 3
	m.mu.Unlock()
	s := newFDStore(newNotifier(lookupIn(m.environment())), nil)
	s.count = m.count
	data, runtime := memfd(t, "data"), memfd(t, "runtime-v1.1")
	states := []stored{memfd(t, "state-v1.1"), memfd(t, "state-v1.2"), memfd(t, "state-v1.3")}
	holds := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, m.names()); diff != "" {
			t.Errorf("held (-want +got):\n%s", diff)
		}
	}
	if err := s.sync(t.Context(), []stored{data, runtime, states[0]}, false); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var full *errStoreFull
		if err := s.sync(t.Context(), []stored{data, runtime, states[1]}, false); !errors.As(err, &full) || full.max != 3 {
			t.Errorf("a full store: %v", err)
		}
		holds("data", "runtime-v1.1", "state-v1.1")
	}
	// With room it is as ever, and what was refused meanwhile is not waited for.
	m.mu.Lock()
	m.max = 4
	m.mu.Unlock()
	if err := s.sync(t.Context(), []stored{data, runtime, states[2]}, true); err != nil {
		t.Fatal(err)
	}
	holds("data", "runtime-v1.1", "state-v1.3")
}

// What is known of backends goes into the store without a receipt; the old one
// goes when the new one is known to be there.
func TestVerdictsReplaceWhatWasHandedOver(t *testing.T) {
	for _, test := range []struct {
		name string
		max  int
		want []string
	}{
		{"room", 512, []string{"runtime-v1.5", "state-v1.8"}},
		{"none", 2, []string{"runtime-v1.4", "state-v1.8"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newManager(t)
			d := bare(t, m, nil)
			d.configPath = filepath.Join(t.TempDir(), "slicelb.toml")
			if err := os.WriteFile(d.configPath, []byte(oneVIP), 0o644); err != nil {
				t.Fatal(err)
			}
			for g := uint64(2); g <= 4; g++ { // as many as some version left
				d.handed = append(d.handed, handedRuntime(t, g))
			}
			d.store = newFDStore(d.notify, d.handed)
			d.store.count, d.keeper.store, d.keeper.count = m.count, d.store, m.count
			d.states = 7
			for _, f := range d.handed {
				if err := d.notify.send([]int{f.FD}, "FDSTORE=1", "FDNAME="+f.Name); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.notify.barrier(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.mu.Lock()
			m.max = test.max
			m.mu.Unlock()
			if err := d.start(); err != nil {
				t.Fatal(err)
			}
			defer d.state.Close()
			d.keep(t.Context(), false)
			if d.storeErr != nil {
				t.Fatal(d.storeErr)
			}
			d.ready, d.backends.unsaved = true, true
			d.saveStates(0)
			defer d.backends.stateFile.Close()
			if len(d.keeper.pokes) != 1 {
				t.Error("nobody asks what the store holds now")
			}
			d.count(t.Context(), d.keeper.ask(t.Context()))
			got := awaitNames(t, m, len(test.want))
			test.want[1] = d.good.name()
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("held (-want +got):\n%s", diff)
			}
			if full := test.max == 2; full != (d.storeErr != nil) {
				t.Errorf("told: %v", d.storeErr)
			}
		})
	}
}

func handedRuntime(t *testing.T, generation uint64) stored {
	t.Helper()
	b := newBackendStates()
	b.generation = generation - 1
	if err := b.seal(); err != nil {
		t.Fatal(err)
	}
	defer b.stateFile.Close()
	fd, err := unix.FcntlInt(b.stateFile.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return stored{Name: b.wanted()[0].Name, FD: fd}
}

// awaitNames waits until the manager holds so many.
func awaitNames(t *testing.T, m *manager, n int) []string {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for tick := time.Tick(time.Millisecond); ; <-tick {
		names := m.names()
		if len(names) == n || time.Now().After(deadline) {
			slices.SortFunc(names, strings.Compare)
			return names
		}
	}
}
