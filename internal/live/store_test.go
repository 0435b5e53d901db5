package live

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// store is a service manager's descriptor store: what the daemon puts there
// outlives it, and is handed to the next one.
type store struct {
	*host
	conn *net.UnixConn

	mu   sync.Mutex
	held []*os.File // by name
}

// newStore has daemons that are started from here on use a store.
func (h *host) newStore() *store {
	h.Helper()
	path := filepath.Join(h.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		h.Fatal(err)
	}
	h.Setenv("NOTIFY_SOCKET", path)
	s := &store{host: h, conn: conn}
	done := make(chan struct{})
	go func() { defer close(done); s.read() }()
	h.Cleanup(func() {
		conn.Close()
		<-done
		for _, f := range s.held {
			f.Close()
		}
	})
	return s
}

func (s *store) read() {
	b, oob := make([]byte, 64<<10), make([]byte, 4096)
	for {
		n, on, _, _, err := s.conn.ReadMsgUnix(b, oob)
		if err != nil {
			return
		}
		var fds []int
		if messages, err := unix.ParseSocketControlMessage(oob[:on]); err == nil {
			for _, m := range messages {
				if got, err := unix.ParseUnixRights(&m); err == nil {
					fds = append(fds, got...)
				}
			}
		}
		s.take(string(b[:n]), fds)
	}
}

// take does what a message says. Descriptors that are not to be kept, such as a
// barrier's, are closed, which is the answer.
func (s *store) take(text string, fds []int) {
	said := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, "=")
		said[key] = value
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case said["FDSTORE"] == "1":
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			s.held = append(s.held, os.NewFile(uintptr(fd), said["FDNAME"]))
		}
		return
	case said["FDSTOREREMOVE"] == "1":
		var rest []*os.File
		for _, f := range s.held {
			if f.Name() == said["FDNAME"] {
				f.Close()
			} else {
				rest = append(rest, f)
			}
		}
		s.held = rest
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// kill ends the daemon with SIGKILL and starts another.
func (s *store) kill() {
	s.Helper()
	s.end()
	s.again()
}

func (s *store) end() {
	s.Helper()
	if err := s.daemon.Process.Kill(); err != nil {
		s.Fatal(err)
	}
	_ = s.daemon.Wait() // killed: its status is known
}

// again starts a daemon that is handed what the store holds.
func (s *store) again() {
	s.Helper()
	path, err := build()
	if err != nil {
		s.Fatal(err)
	}
	// The process that is handed descriptors must know its own number.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, path, "serve", "-c", s.config,
		"--cgroup-root", s.root.Path, "--socket", filepath.Join(filepath.Dir(s.config), "run", "api.sock"))
	cmd.Stderr = s.log
	cmd.SysProcAttr = mortal()
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, f := range s.held {
		names = append(names, f.Name())
	}
	cmd.ExtraFiles = s.held
	cmd.Env = append(os.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	s.daemon = cmd
}
