package fdstore_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
)

func TestSyncStoresBeforeItRemoves(t *testing.T) {
	m := fdstoretest.New(t)
	n := fdstore.NewNotifier(fdstoretest.LookupIn(m.Environment()))
	ctx := t.Context()
	a, b, c := fdstoretest.Memfd(t, "a"), fdstoretest.Memfd(t, "b"), fdstoretest.Memfd(t, "c")
	s := fdstore.New(n, nil, m.Ask)
	if err := s.Sync(ctx, []fdstore.FD{a, b}, false); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(ctx, []fdstore.FD{b, c}, false); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"FDSTORE=1 FDNAME=a FDPOLL=0", "FDSTORE=1 FDNAME=b FDPOLL=0", "BARRIER=1",
		"FDSTORE=1 FDNAME=c FDPOLL=0", "BARRIER=1", "FDSTOREREMOVE=1 FDNAME=a", "BARRIER=1",
	}
	if diff := cmp.Diff(want, m.Said()); diff != "" {
		t.Errorf("said (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b", "c"}, m.Names()); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
	// What was handed over under other names goes, even if nobody knows it.
	s = fdstore.New(n, []fdstore.FD{{Name: "b"}, {Name: "c"}, {Name: "foreign"}, {Name: "foreign"}}, m.Ask)
	if err := s.Sync(ctx, []fdstore.FD{b, c}, false); err != nil {
		t.Fatal(err)
	}
	if got := m.Said()[len(want):]; !cmp.Equal(got, []string{"FDSTOREREMOVE=1 FDNAME=foreign", "BARRIER=1"}) {
		t.Errorf("said %q", got)
	}
	// Nothing to do is nothing said.
	before := len(m.Said())
	if err := s.Sync(ctx, []fdstore.FD{b, c}, false); err != nil || len(m.Said()) != before {
		t.Errorf("said %q, %v", m.Said()[before:], err)
	}
	// A refill says everything, and removes nothing.
	if err := s.Sync(ctx, []fdstore.FD{b, c}, true); err != nil {
		t.Fatal(err)
	}
	if got := m.Said()[before:]; len(got) != 3 {
		t.Errorf("said %q", got)
	}
	if err := s.Sync(ctx, []fdstore.FD{a, a}, false); err == nil {
		t.Error("two descriptors of one name are stored")
	}
}

// A manager that does not answer keeps the old set: nothing is removed.
func TestSyncWithoutAnswer(t *testing.T) {
	m := fdstoretest.New(t)
	m.Mute()
	s := fdstore.New(fdstore.NewNotifier(fdstoretest.LookupIn(m.Environment())), []fdstore.FD{{Name: "old"}}, m.Ask)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Sync(ctx, []fdstore.FD{fdstoretest.Memfd(t, "new")}, false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error: %v", err)
	}
	for _, l := range m.Said() {
		if strings.Contains(l, "REMOVE") {
			t.Errorf("said %q", l)
		}
	}
}

// Who stops does not wait for a manager that does not answer.
func TestCounterEndsWithoutAnswer(t *testing.T) {
	m := fdstoretest.New(t)
	m.Mute()
	s := fdstore.New(fdstore.NewNotifier(fdstoretest.LookupIn(m.Environment())), nil, m.Ask)
	if err := s.Offer(fdstoretest.Memfd(t, "new")); err != nil {
		t.Fatal(err)
	}
	c := fdstore.NewCounter(s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	c.Poke()
	deadline := time.After(4 * time.Second) // sooner than the wait for an answer
	for tick := time.Tick(time.Millisecond); !slices.Contains(m.Said(), "BARRIER=1"); {
		select {
		case <-tick:
		case <-deadline:
			t.Fatal("nobody asked")
		}
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("error: %v", err)
		}
	case <-deadline:
		t.Error("it waits for the answer")
	}
}

func TestNotifierWithoutManager(t *testing.T) {
	for _, env := range []map[string]string{{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}} {
		n := fdstore.NewNotifier(fdstoretest.LookupIn(env))
		if n.Managed() {
			t.Errorf("%v: managed", env)
		}
		if err := n.Send("READY=1"); err != nil {
			t.Errorf("%v: %v", env, err)
		}
		if err := n.Barrier(t.Context()); err != nil {
			t.Errorf("%v: %v", env, err)
		}
	}
	env := map[string]string{"NOTIFY_SOCKET": "@slicelb-test-nobody", "WATCHDOG_USEC": "8000000"}
	n := fdstore.NewNotifier(fdstoretest.LookupIn(env))
	if n.Watchdog != 8*time.Second {
		t.Errorf("watchdog %v", n.Watchdog)
	}
	if err := n.Send("READY=1"); err == nil {
		t.Error("a manager that is not there takes a message")
	}
	env["WATCHDOG_PID"] = strconv.Itoa(os.Getpid() + 1)
	if n := fdstore.NewNotifier(fdstoretest.LookupIn(env)); n.Watchdog != 0 {
		t.Errorf("another process's watchdog: %v", n.Watchdog)
	}
}

func TestTakeStored(t *testing.T) {
	self := strconv.Itoa(os.Getpid())
	for _, test := range []struct {
		name string
		env  map[string]string
		want []string
		bad  bool
	}{
		{"nothing", map[string]string{}, nil, false},
		{"another process's", map[string]string{"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, nil, false},
		{"no number", map[string]string{"LISTEN_PID": self, "LISTEN_FDS": "x"}, nil, true},
		{"too many", map[string]string{"LISTEN_PID": self, "LISTEN_FDS": "99999999"}, nil, true},
		{"none", map[string]string{"LISTEN_PID": self, "LISTEN_FDS": "0"}, []string{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			unset := func(name string) error { delete(test.env, name); return nil }
			got, err := fdstore.Take(fdstoretest.LookupIn(test.env), unset)
			if (err != nil) != test.bad || len(got) != len(test.want) {
				t.Errorf("got %v, %v", got, err)
			}
			if len(test.env) > 0 {
				t.Errorf("left for children: %v", test.env)
			}
		})
	}
}

// A store that is full refuses, and says so to nobody: what it holds is not given
// up for what it may not have taken.
func TestFullStoreKeepsTheOld(t *testing.T) {
	m := fdstoretest.New(t)
	m.Limit(3)
	s := fdstore.New(fdstore.NewNotifier(fdstoretest.LookupIn(m.Environment())), nil, m.Ask)
	data, runtime := fdstoretest.Memfd(t, "data"), fdstoretest.Memfd(t, "runtime-v1.1")
	states := []fdstore.FD{fdstoretest.Memfd(t, "state-v1.1"), fdstoretest.Memfd(t, "state-v1.2"), fdstoretest.Memfd(t, "state-v1.3")}
	holds := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, m.Names()); diff != "" {
			t.Errorf("held (-want +got):\n%s", diff)
		}
	}
	if err := s.Sync(t.Context(), []fdstore.FD{data, runtime, states[0]}, false); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var full *fdstore.FullError
		if err := s.Sync(t.Context(), []fdstore.FD{data, runtime, states[1]}, false); !errors.As(err, &full) || full.Max != 3 {
			t.Errorf("a full store: %v", err)
		}
		holds("data", "runtime-v1.1", "state-v1.1")
	}
	// With room it is as ever, and what was refused meanwhile is not waited for.
	m.Limit(4)
	if err := s.Sync(t.Context(), []fdstore.FD{data, runtime, states[2]}, true); err != nil {
		t.Fatal(err)
	}
	holds("data", "runtime-v1.1", "state-v1.3")
}
