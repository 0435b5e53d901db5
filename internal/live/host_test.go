package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/internal/leftover"
)

// backendEnv makes this program a backend on the address that it names.
const backendEnv = "SLICELB_LIVE_BACKEND"

func TestMain(m *testing.M) {
	if addr := os.Getenv(httpEnv); addr != "" {
		err := kerneltest.ServeHTTP(addr, func() error { _, err := fmt.Println("ready"); return err })
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if addr := os.Getenv(backendEnv); addr != "" {
		fmt.Fprintln(os.Stderr, serveBackend(addr))
		os.Exit(1)
	}
	kerneltest.BeClient()
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// serveBackend greets whoever connects with its own address.
func serveBackend(addr string) error {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			fmt.Fprintln(c, addr)
			c.Read(make([]byte, 1))
		}()
	}
}

// built is where the daemon lies that the tests run.
var built string

var build = sync.OnceValues(func() (string, error) {
	dir, err := leftover.MkdirTemp("") // a daemon without privileges runs it, too
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "slicelb")
	out, err := exec.Command("go", "build", "-o", path, "github.com/slicelb/slicelb/cmd/slicelb").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, nil
})

// host is a network namespace that the test's goroutine is in, a cgroup, and a
// daemon for both.
type host struct {
	*testing.T
	root   *kerneltest.Cgroup
	client *api.Client
	config string
	log    *lockedBuffer
	daemon *exec.Cmd

	// unit has the daemon run with the unit's privileges, and no others.
	unit bool
	// systemd is what the daemon finds at /run/systemd, in a mount namespace of its own; ""
	// is what the machine has there.
	systemd string
}

// capabilities of the unit: CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF.
var capabilities = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_PERFMON, unix.CAP_BPF}

const nobody = 65534

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newHost(t *testing.T) *host {
	t.Helper()
	kerneltest.EnterNetns(t)
	h := &host{T: t, root: kerneltest.NewCgroup(t), log: &lockedBuffer{}}
	dir, err := leftover.MkdirTemp("/run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "run"), 0o755), os.Chown(filepath.Join(dir, "run"), nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	h.config = filepath.Join(dir, "slicelb.toml")
	h.client = api.NewClient(filepath.Join(dir, "run", "api.sock"))
	return h
}

// serve starts the daemon with this configuration, and returns when it is ready.
func (h *host) serve(toml string) {
	h.Helper()
	h.configure(toml)
	h.launch()
	h.await("ready", func(s *api.Status) bool { return s.DataPlane.Attached && s.State == api.OK })
}

// launch starts the daemon with the configuration that is there, and returns when
// calls are translated.
func (h *host) launch() {
	h.Helper()
	path, err := build()
	if err != nil {
		h.Fatal(err)
	}
	args := []string{path, "serve", "-c", h.config, "--cgroup-root", h.root.Path,
		"--socket", filepath.Join(filepath.Dir(h.config), "run", "api.sock")}
	if h.systemd != "" {
		args = append([]string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /run/systemd && exec "$@"`, h.systemd}, args...)
	}
	h.daemon = exec.Command(args[0], args[1:]...)
	h.daemon.Stderr = h.log
	h.daemon.SysProcAttr = mortal()
	if h.unit {
		h.daemon.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
		h.daemon.SysProcAttr.AmbientCaps = capabilities
	}
	if err := h.daemon.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		_ = h.daemon.Process.Signal(unix.SIGTERM)
		if err := h.daemon.Wait(); err != nil {
			h.Errorf("daemon: %v", err)
		}
		if h.Failed() {
			h.Logf("daemon's log:\n%s", h.log)
		}
	})
	h.await("attached", func(s *api.Status) bool { return s.DataPlane.Attached })
}

// mortal has a process end with this one, whatever ends that. The signal follows the
// thread that starts it, to which newHost has bound the test.
func mortal() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL} }

func (h *host) configure(toml string) {
	h.Helper()
	if err := os.WriteFile(h.config, []byte(toml), 0o644); err != nil {
		h.Fatal(err)
	}
}

// reload loads another configuration; it returns when the kernel has it.
func (h *host) reload(toml string) {
	h.Helper()
	h.configure(toml)
	if _, err := h.client.Reload(h.Context(), 20*time.Second); err != nil {
		h.Fatal(err)
	}
}

func (h *host) await(what string, ok func(*api.Status) bool) {
	h.Helper()
	var s *api.Status
	var err error
	h.until(what, func() bool {
		s, err = h.client.Status(h.Context())
		return err == nil && ok(s)
	}, func() string { return fmt.Sprintf("%+v, %v\n%s", s, err, h.log) })
}

// until polls for a minute at most.
func (h *host) until(what string, ok func() bool, have func() string) {
	h.Helper()
	deadline := time.Now().Add(time.Minute)
	for t := time.NewTicker(20 * time.Millisecond); ; <-t.C {
		if ok() {
			t.Stop()
			return
		}
		if time.Now().After(deadline) {
			h.Fatalf("never: %s; %s", what, have())
		}
	}
}

// backend is one backend of a VIP as the daemon sees it.
func (h *host) backend(vip, addr string) api.Backend {
	h.Helper()
	v, err := h.client.VIP(h.Context(), vip)
	if err != nil {
		h.Fatal(err)
	}
	for _, b := range v.Backends {
		if b.Address == addr {
			return b
		}
	}
	h.Fatalf("vip %s has no backend %s: %+v", vip, addr, v.Backends)
	return api.Backend{}
}

// process starts a backend that can be killed: a process of its own.
func (h *host) process() (addr string, cmd *exec.Cmd) {
	h.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.Fatal(err)
	}
	addr = l.Addr().(*net.TCPAddr).AddrPort().String()
	l.Close()
	return addr, h.processAt(addr)
}

// processAt is such a backend on an address that is free.
func (h *host) processAt(addr string) *exec.Cmd {
	h.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), backendEnv+"="+addr)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = mortal()
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 16)); err != nil {
		h.Fatalf("backend %s: %v", addr, err)
	}
	return cmd
}

// vipOf is the configuration of one VIP.
func vipOf(name, frontends, rest string, backends ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[vip.%s]\nfrontends = [%s]\n%s\n", name, frontends, rest)
	for _, addr := range backends {
		fmt.Fprintf(&b, "[[vip.%s.backend]]\naddress = %q\n", name, netip.MustParseAddrPort(addr))
	}
	return b.String()
}
