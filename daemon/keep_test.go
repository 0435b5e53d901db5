package daemon

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch"
)

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
			m := fdstoretest.New(t)
			d := bare(t, m, nil)
			d.configPath = filepath.Join(t.TempDir(), "slicelb.toml")
			if err := os.WriteFile(d.configPath, []byte(oneVIP), 0o644); err != nil {
				t.Fatal(err)
			}
			for g := uint64(2); g <= 4; g++ { // as many as some version left
				d.handed = append(d.handed, handedRuntime(t, g))
			}
			d.kept = newKept(fdstore.New(d.notify, d.handed, m.Ask))
			d.states = 7
			for _, f := range d.handed {
				if err := d.kept.store.Offer(f); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.notify.Barrier(t.Context()); err != nil {
				t.Fatal(err)
			}
			m.Limit(test.max)
			if err := d.start(); err != nil {
				t.Fatal(err)
			}
			defer d.state.Close()
			d.keep(t.Context(), false)
			if d.kept.err != nil {
				t.Fatal(d.kept.err)
			}
			d.ready, d.backends.unsaved = true, true
			d.saveStates(0)
			defer d.backends.stateFile.Close()
			if !d.kept.counter.Poked() {
				t.Error("nobody asks what the store holds now")
			}
			d.count(t.Context(), d.kept.counter.Count(t.Context()))
			got := awaitNames(t, m, len(test.want))
			test.want[1] = d.good.name()
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("held (-want +got):\n%s", diff)
			}
			if full := test.max == 2; full != (d.kept.err != nil) {
				t.Errorf("told: %v", d.kept.err)
			}
		})
	}
}

func handedRuntime(t *testing.T, generation uint64) fdstore.FD {
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
	return fdstore.FD{Name: b.wanted()[0].Name, FD: fd}
}

// A reload whose configuration could not be sealed is done, and says so; the next
// process gets it as soon as it can be.
func TestReloadIsSealedLater(t *testing.T) {
	m := fdstoretest.New(t)
	d := bare(t, m, nil)
	d.running = sourceOf(t, "[group.before]\nslices = [\"before.slice\"]\n")
	if err := d.remember(); err != nil {
		t.Fatal(err)
	}
	defer func() { d.state.Close() }()
	d.keep(t.Context(), false)

	r := &reload{source: sourceOf(t, "[group.after]\nslices = [\"after.slice\"]\n"), done: make(chan reloaded, 1)}
	d.pending = r
	withoutDescriptors(t, func() { d.finish(t.Context(), &unitwatch.Snapshot{Complete: true, Tree: r.source.tree}) })
	if answer := <-r.done; answer.err != nil {
		t.Errorf("the reload: %v", answer.err)
	}
	if !errors.Is(d.kept.err, unix.EMFILE) || d.held().Store {
		t.Errorf("said of the store: %v, %+v", d.kept.err, d.held())
	}
	d.kept.at = time.Time{} // long ago
	d.lookAtStore(t.Context())
	if d.kept.err != nil || !d.good.Loaded.Equal(r.source.loaded) {
		t.Errorf("sealed is the configuration of %v, want that of %v: %v", d.good.Loaded, r.source.loaded, d.kept.err)
	}
	if diff := cmp.Diff([]string{d.good.name()}, awaitNames(t, m, 1)); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
}

// So with what an operator said of a backend.
func TestOrderIsSealedLater(t *testing.T) {
	d := bare(t, fdstoretest.New(t), nil)
	d.ready = true
	at := lb.Endpoint{VIP: "db", Addr: netip.MustParseAddrPort("192.0.2.11:5432")}
	d.backends.operator[at] = order{State: api.OrderDrain, Since: time.Now()}
	withoutDescriptors(t, func() {
		if forgotten := d.keepOrders(t.Context()); !strings.Contains(forgotten, "too many open files") {
			t.Errorf("told: %q", forgotten)
		}
	})
	d.saveStates(0)
	if d.backends.stateFile == nil {
		t.Fatal("nothing is sealed")
	}
	defer d.backends.stateFile.Close()
	s, err := readRuntime(int(d.backends.stateFile.Fd()))
	if err != nil || len(s.Orders) != 1 || s.Orders[0].Address != at.Addr {
		t.Errorf("sealed: %+v, %v", s, err)
	}
}

// withoutDescriptors calls f while this process gets no descriptor.
func withoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	f()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}

// awaitNames waits until the manager holds so many.
func awaitNames(t *testing.T, m *fdstoretest.Manager, n int) []string {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for tick := time.Tick(time.Millisecond); ; <-tick {
		names := m.Names()
		if len(names) == n || time.Now().After(deadline) {
			slices.SortFunc(names, strings.Compare)
			return names
		}
	}
}

func TestRefill(t *testing.T) {
	var r refill
	at := time.Unix(1000, 0)
	steps := []struct {
		count fdstore.Count
		after time.Duration
		want  bool
	}{
		{fdstore.Count{Held: 0, Max: 512}, 0, true},                                 // at once
		{fdstore.Count{Held: 0, Max: 512}, time.Second, false},                      // not in a hurry
		{fdstore.Count{Held: 3, Max: 3}, time.Second, true},                         // another limit
		{fdstore.Count{Held: 3, Max: 3}, time.Hour, false},                          // it cannot hold more
		{fdstore.Count{Held: 3, Max: 512}, time.Second, true},                       // it can again
		{fdstore.Count{Held: 3, Max: 512}, storeInterval + 2*time.Second, true},     // it still does not
		{fdstore.Count{Held: 3, Max: 512}, storeInterval + 2*time.Second + 1, true}, // each time
	}
	now := at
	for i, s := range steps {
		now = now.Add(s.after)
		if got := r.due(s.count, 45, now); got != s.want {
			t.Errorf("step %d: %t, want %t", i, got, s.want)
		}
	}
}
