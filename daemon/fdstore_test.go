package daemon

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// manager is systemd's side of sd_notify: it keeps descriptors by name.
type manager struct {
	t    testing.TB
	conn *net.UnixConn
	path string

	mu    sync.Mutex
	log   []string // what came, in order
	store []stored // descriptors of its own
	mute  bool     // it answers no barrier
	max   int      // FileDescriptorStoreMax; 0: no limit
}

func newManager(t testing.TB) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(t.TempDir(), "notify")}
	var err error
	m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); m.run() }()
	t.Cleanup(func() {
		m.conn.Close()
		<-done
		closeAll(m.store)
	})
	return m
}

func (m *manager) run() {
	b, oob := make([]byte, 64<<10), make([]byte, 4096)
	for {
		n, on, _, _, err := m.conn.ReadMsgUnix(b, oob)
		if err != nil {
			return
		}
		var fds []int
		if msgs, err := unix.ParseSocketControlMessage(oob[:on]); err == nil {
			for _, msg := range msgs {
				if got, err := unix.ParseUnixRights(&msg); err == nil {
					fds = append(fds, got...)
				}
			}
		}
		m.take(strings.Split(string(b[:n]), "\n"), fds)
	}
}

func (m *manager) take(lines []string, fds []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, strings.Join(lines, " "))
	vars := map[string]string{}
	for _, l := range lines {
		k, v, _ := strings.Cut(l, "=")
		vars[k] = v
	}
	switch {
	case vars["FDSTORE"] == "1":
		for _, fd := range fds {
			if m.has(fd) || m.max > 0 && len(m.store) >= m.max {
				unix.Close(fd)
				continue
			}
			m.store = append(m.store, stored{Name: vars["FDNAME"], FD: fd, Poll: vars["FDPOLL"] != "0"})
		}
		return
	case vars["FDSTOREREMOVE"] == "1":
		var rest []stored
		for _, f := range m.store {
			if f.Name == vars["FDNAME"] {
				unix.Close(f.FD)
			} else {
				rest = append(rest, f)
			}
		}
		m.store = rest
	case vars["BARRIER"] == "1" && m.mute:
		m.store = append(m.store, stored{Name: "barrier", FD: fds[0]})
		return
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// has says whether a memfd is stored already, under whatever name.
func (m *manager) has(fd int) bool {
	var a, b unix.Stat_t
	return unix.Fstat(fd, &a) == nil && a.Mode&unix.S_IFMT == unix.S_IFREG && slices.ContainsFunc(m.store, func(f stored) bool {
		return unix.Fstat(f.FD, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
	})
}

// count is what the manager says to who asks it.
func (m *manager) count(context.Context) storeCount {
	m.mu.Lock()
	defer m.mu.Unlock()
	return storeCount{held: uint32(len(m.store)), max: uint32(m.max)}
}

func (m *manager) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []string{}
	for _, f := range m.store {
		out = append(out, f.Name)
	}
	return out
}

func (m *manager) said() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string{}, m.log...)
}

// environment is what the manager starts a process with.
func (m *manager) environment() map[string]string {
	return map[string]string{"NOTIFY_SOCKET": m.path}
}

func lookupIn(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

func memfd(t *testing.T, name string) stored {
	t.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return stored{Name: name, FD: fd}
}

func TestSyncStoresBeforeItRemoves(t *testing.T) {
	m := newManager(t)
	n := newNotifier(lookupIn(m.environment()))
	ctx := t.Context()
	a, b, c := memfd(t, "a"), memfd(t, "b"), memfd(t, "c")
	s := newFDStore(n, nil)
	if err := s.sync(ctx, []stored{a, b}, false); err != nil {
		t.Fatal(err)
	}
	if err := s.sync(ctx, []stored{b, c}, false); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"FDSTORE=1 FDNAME=a FDPOLL=0", "FDSTORE=1 FDNAME=b FDPOLL=0", "BARRIER=1",
		"FDSTORE=1 FDNAME=c FDPOLL=0", "BARRIER=1", "FDSTOREREMOVE=1 FDNAME=a", "BARRIER=1",
	}
	if diff := cmp.Diff(want, m.said()); diff != "" {
		t.Errorf("said (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b", "c"}, m.names()); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
	// What was handed over under other names goes, even if nobody knows it.
	s = newFDStore(n, []stored{{Name: "b"}, {Name: "c"}, {Name: "foreign"}, {Name: "foreign"}})
	if err := s.sync(ctx, []stored{b, c}, false); err != nil {
		t.Fatal(err)
	}
	if got := m.said()[len(want):]; !cmp.Equal(got, []string{"FDSTOREREMOVE=1 FDNAME=foreign", "BARRIER=1"}) {
		t.Errorf("said %q", got)
	}
	// Nothing to do is nothing said.
	before := len(m.said())
	if err := s.sync(ctx, []stored{b, c}, false); err != nil || len(m.said()) != before {
		t.Errorf("said %q, %v", m.said()[before:], err)
	}
	// A refill says everything, and removes nothing.
	if err := s.sync(ctx, []stored{b, c}, true); err != nil {
		t.Fatal(err)
	}
	if got := m.said()[before:]; len(got) != 3 {
		t.Errorf("said %q", got)
	}
	if err := s.sync(ctx, []stored{a, a}, false); err == nil {
		t.Error("two descriptors of one name are stored")
	}
}

// A manager that does not answer keeps the old set: nothing is removed.
func TestSyncWithoutAnswer(t *testing.T) {
	m := newManager(t)
	m.mu.Lock()
	m.mute = true
	m.mu.Unlock()
	s := newFDStore(newNotifier(lookupIn(m.environment())), []stored{{Name: "old"}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.sync(ctx, []stored{memfd(t, "new")}, false); err == nil {
		t.Error("no error")
	}
	for _, l := range m.said() {
		if strings.Contains(l, "REMOVE") {
			t.Errorf("said %q", l)
		}
	}
}

func TestNotifierWithoutManager(t *testing.T) {
	for _, env := range []map[string]string{{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}} {
		n := newNotifier(lookupIn(env))
		if n.managed() {
			t.Errorf("%v: managed", env)
		}
		if err := n.send(nil, "READY=1"); err != nil {
			t.Errorf("%v: %v", env, err)
		}
		if err := n.barrier(t.Context()); err != nil {
			t.Errorf("%v: %v", env, err)
		}
	}
	env := map[string]string{"NOTIFY_SOCKET": "@slicelb-test-nobody", "WATCHDOG_USEC": "8000000"}
	n := newNotifier(lookupIn(env))
	if n.watchdog != 8*time.Second {
		t.Errorf("watchdog %v", n.watchdog)
	}
	if err := n.send(nil, "READY=1"); err == nil {
		t.Error("a manager that is not there takes a message")
	}
	env["WATCHDOG_PID"] = strconv.Itoa(os.Getpid() + 1)
	if n := newNotifier(lookupIn(env)); n.watchdog != 0 {
		t.Errorf("another process's watchdog: %v", n.watchdog)
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
			got, err := takeStored(lookupIn(test.env), unset)
			if (err != nil) != test.bad || len(got) != len(test.want) {
				t.Errorf("got %v, %v", got, err)
			}
			if len(test.env) > 0 {
				t.Errorf("left for children: %v", test.env)
			}
		})
	}
}

func TestLastGood(t *testing.T) {
	write := func(generation uint64, text string) stored {
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
		return stored{Name: l.name(), FD: int(f.Fd())}
	}
	old, newer := write(9, "old"), write(10, "newer")
	open := memfd(t, "state-v1.11")
	later := memfd(t, "state-v2.1")
	got, err := newestLastGood([]stored{newer, open, old, later, {Name: "slb1-x-map-y", FD: -1}})
	if got == nil || got.TOML != "newer" || got.Generation != 10 {
		t.Errorf("got %+v", got)
	}
	if err == nil || !strings.Contains(err.Error(), "state-v1.11: not sealed") {
		t.Errorf("error: %v", err)
	}
	if n := highestGeneration([]stored{newer, open, old}); n != 11 {
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

// fault F5
func TestLock(t *testing.T) {
	dir := t.TempDir()
	first, err := takeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(dir); err == nil || !strings.Contains(err.Error(), "another daemon runs") {
		t.Errorf("second: %v", err)
	}
	path := filepath.Join(dir, lockName)
	if !holds(first, path) {
		t.Error("the lock is not seen as held")
	}
	// The lock of a file that somebody removed guards nothing.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if holds(first, path) {
		t.Error("a removed lock is seen as held")
	}
	first.Close()
	again, err := takeLock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	// A link to elsewhere is not followed.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), path); err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(dir); err == nil {
		t.Error("a link is followed")
	}
}

func TestRefill(t *testing.T) {
	var r refill
	at := time.Unix(1000, 0)
	steps := []struct {
		count storeCount
		after time.Duration
		want  bool
	}{
		{storeCount{held: 0, max: 512}, 0, true},                                 // at once
		{storeCount{held: 0, max: 512}, time.Second, false},                      // not in a hurry
		{storeCount{held: 3, max: 3}, time.Second, true},                         // another limit
		{storeCount{held: 3, max: 3}, time.Hour, false},                          // it cannot hold more
		{storeCount{held: 3, max: 512}, time.Second, true},                       // it can again
		{storeCount{held: 3, max: 512}, storeInterval + 2*time.Second, true},     // it still does not
		{storeCount{held: 3, max: 512}, storeInterval + 2*time.Second + 1, true}, // each time
	}
	now := at
	for i, s := range steps {
		now = now.Add(s.after)
		if got := r.due(s.count, 45, now); got != s.want {
			t.Errorf("step %d: %t, want %t", i, got, s.want)
		}
	}
}
