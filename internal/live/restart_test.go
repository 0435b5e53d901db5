package live

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/internal/scale"
)

// httpEnv makes this program an HTTP server on the address that it names.
const httpEnv = "SLICELB_LIVE_HTTP"

// served is an HTTP server that is a unit.
type served struct {
	addr netip.AddrPort
	unit string
	cmd  *exec.Cmd
}

// run starts the server's process; it returns when it listens.
func (s *served) run(t *testing.T) {
	t.Helper()
	s.cmd = exec.Command("/proc/self/exe")
	s.cmd.Env = append(os.Environ(), httpEnv+"="+s.addr.String())
	s.cmd.Stderr = os.Stderr
	s.cmd.SysProcAttr = mortal()
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatalf("server %s: %v", s.addr, err)
	}
}

// Servers are restarted one after the other, each drained and waited for before
// it is told to end, while wrk makes requests without pause: none is lost.
func TestRestartsLoseNothing(t *testing.T) {
	for _, mode := range []struct {
		name    string
		args    []string
		timeout string // of the wait
		drained bool   // in that time
	}{
		{"a connection for each request", []string{"-H", "Connection: close"}, "30s", true},
		{"connections that are kept", nil, "3s", false}, // the server ends them
	} {
		t.Run(mode.name, func(t *testing.T) {
			requests, lost, said := restarts(t, scale.Count(20), mode.args, func(m *manager, s *served) {
				m.turn(s.unit, "deactivating", false)
				drain := m.command("backend", "drain", "--unit", s.unit, "--wait", "--timeout", mode.timeout)
				if out, err := drain.CombinedOutput(); mode.drained && err != nil {
					t.Errorf("drain: %v\n%s", err, out)
				}
				s.terminate(t)
			})
			if lost > 0 || requests == 0 {
				t.Errorf("%d of %d requests were lost; wrk said:\n%s", lost, requests, said)
			}
		})
	}
}

// What a restart loses where nothing is drained: what calls between the moment in
// which the server closes its socket and the one in which the daemon has heard of
// the stop, which systemd tells after it has told the server.
func TestRestartsWithoutDrain(t *testing.T) {
	requests, lost, said := restarts(t, scale.Count(20), []string{"-H", "Connection: close"}, func(m *manager, s *served) {
		s.terminate(t)
		m.turn(s.unit, "deactivating", false)
	})
	if lost > requests/2 {
		t.Errorf("%d of %d requests were lost; wrk said:\n%s", lost, requests, said)
	}
}

// restarts has each of three servers stopped by stop and started again, so often,
// under wrk's load.
func restarts(t *testing.T, each int, args []string, stop func(*manager, *served)) (requests, lost int, said string) {
	t.Helper()
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	h := newHost(t)
	m := h.newManager()
	servers := make([]*served, 3)
	for i := range servers {
		addr := kerneltest.FreePort(t)
		servers[i] = &served{addr: addr, unit: fmt.Sprintf("http@%d.service", addr.Port())}
		servers[i].run(t)
		t.Cleanup(func() {
			_ = servers[i].cmd.Process.Kill()
			_ = servers[i].cmd.Wait() // or it has ended
		})
		m.turn(servers[i].unit, "active", true)
	}
	h.serve("[vip.web]\nfrontends = [\"" + vip + "\"]\n[[vip.web.backend]]\nunit = \"http@*.service\"\naddress = \"127.0.0.1:%i\"\n")
	up := func(s *served) bool { b := h.find(s.addr); return b != nil && b.Share > 0 && b.Order == "" }
	for _, s := range servers {
		h.until("it serves", func() bool { return up(s) }, h.log.String)
	}

	load := exec.Command(wrk, append(append([]string{"-t1", "-c8", "-d10m", "--timeout=20s"}, args...), "http://"+vip+"/")...)
	load.SysProcAttr = mortal()
	load.SysProcAttr.UseCgroupFD, load.SysProcAttr.CgroupFD = true, int(h.root.Open(t).Fd())
	var out bytes.Buffer
	load.Stdout, load.Stderr = &out, &out
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = load.Process.Kill() }) // where it is there still
	h.until("the load runs", func() bool {
		v, err := h.client.VIP(t.Context(), "web")
		return err == nil && v.Counters.Connects >= 8
	}, h.log.String)

	for i := range 3 * each {
		s := servers[i%3]
		stop(m, s)
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("server %s: %v", s.addr, err)
		}
		m.turn(s.unit, "", false)
		h.until("it is gone", func() bool { return h.find(s.addr) == nil }, h.log.String)
		s.run(t)
		m.turn(s.unit, "active", true)
		h.until("it serves again", func() bool { return up(s) }, h.log.String)
	}
	if err := load.Process.Signal(unix.SIGINT); err != nil { // it sums up and ends
		t.Error(err)
	}
	if err := load.Wait(); err != nil {
		t.Errorf("wrk: %v", err)
	}
	requests, lost, ok := kerneltest.Wrk(out.String())
	if !ok {
		t.Fatalf("wrk said:\n%s", out.String())
	}
	t.Logf("%d restarts, %d requests, %d lost, %.1f for each restart", 3*each, requests, lost, float64(lost)/float64(3*each))
	return requests, lost, out.String()
}

// terminate tells the server to end.
func (s *served) terminate(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Error(err)
	}
}
