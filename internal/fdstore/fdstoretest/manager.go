// Package fdstoretest has a service manager for tests: the other side of sd_notify's
// protocol. What systemd itself does is tested with systemd (internal/e2e).
package fdstoretest

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/fdstore"
)

// Manager is systemd's side of sd_notify: it keeps descriptors by name.
type Manager struct {
	t    testing.TB
	conn *net.UnixConn
	path string

	mu    sync.Mutex
	log   []string     // what came, in order
	store []fdstore.FD // descriptors of its own
	mute  bool         // it answers no barrier
	max   int          // FileDescriptorStoreMax; 0: no limit
	away  error        // why it cannot be asked; nil: it can
}

// New is a manager that runs until the test ends.
func New(t testing.TB) *Manager {
	t.Helper()
	m := &Manager{t: t, path: filepath.Join(t.TempDir(), "notify")}
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
		fdstore.Close(m.store)
	})
	return m
}

func (m *Manager) run() {
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

func (m *Manager) take(lines []string, fds []int) {
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
			m.store = append(m.store, fdstore.FD{Name: vars["FDNAME"], FD: fd, Poll: vars["FDPOLL"] != "0"})
		}
		return
	case vars["FDSTOREREMOVE"] == "1":
		var rest []fdstore.FD
		for _, f := range m.store {
			if f.Name == vars["FDNAME"] {
				unix.Close(f.FD)
			} else {
				rest = append(rest, f)
			}
		}
		m.store = rest
	case vars["BARRIER"] == "1" && m.mute:
		m.store = append(m.store, fdstore.FD{Name: "barrier", FD: fds[0]})
		return
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// has says whether a memfd is stored already, under whatever name.
func (m *Manager) has(fd int) bool {
	var a, b unix.Stat_t
	return unix.Fstat(fd, &a) == nil && a.Mode&unix.S_IFMT == unix.S_IFREG && slices.ContainsFunc(m.store, func(f fdstore.FD) bool {
		return unix.Fstat(f.FD, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
	})
}

// Ask is what the manager says to who asks it.
func (m *Manager) Ask(context.Context) (held, most uint32, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint32(len(m.store)), uint32(m.max), m.away
}

// Names are those of the descriptors that it holds.
func (m *Manager) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := []string{}
	for _, f := range m.store {
		out = append(out, f.Name)
	}
	return out
}

// Said is what came, in order.
func (m *Manager) Said() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string{}, m.log...)
}

// Environment is what the manager starts a process with.
func (m *Manager) Environment() map[string]string {
	return map[string]string{"NOTIFY_SOCKET": m.path}
}

// Mute has it answer no barrier from now on.
func (m *Manager) Mute() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mute = true
}

// Limit is its FileDescriptorStoreMax= from now on; 0 = none. What it holds, it keeps.
func (m *Manager) Limit(most int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.max = most
}

// Drop has it lose what it holds.
func (m *Manager) Drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	fdstore.Close(m.store)
	m.store = nil
}

// Away has nobody able to ask it any more; err says why.
func (m *Manager) Away(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = err
}

// LookupIn looks variables up in env, as os.LookupEnv does in the environment.
func LookupIn(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := env[name]; return v, ok }
}

// Memfd is a descriptor of its name, until the test ends.
func Memfd(t testing.TB, name string) fdstore.FD {
	t.Helper()
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fdstore.FD{Name: name, FD: fd}
}
