package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/lab"
	"github.com/slicelb/slicelb/internal/lab/labtest"
	"github.com/slicelb/slicelb/internal/leftover"
	"github.com/slicelb/slicelb/internal/scale"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		os.Exit(play(role))
	}
	code := labtest.Main(m)
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// built are the binaries under test, made once.
var built struct {
	sync.Once
	dir string
	err error
}

// binary returns the path of the program, built as it is shipped; with kill
// points where tag says so.
func binary(t *testing.T, tag string) string {
	t.Helper()
	built.Do(func() {
		built.dir, built.err = leftover.MkdirTemp("")
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	path := filepath.Join(built.dir, "slicelb"+tag)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	args := []string{"build", "-trimpath", "-o", path}
	if tag != "" {
		args = append(args, "-tags", tag)
	}
	cmd := exec.Command("go", append(args, "github.com/slicelb/slicelb/cmd/slicelb")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// host is a lab with slicelb installed, its unit stopped and its configuration
// not there yet. All tests share one lab, one after the other.
type host struct {
	*lab.Lab
	t *testing.T
}

const (
	unit     = "slicelb.service"
	vip      = "10.96.0.10:7000"
	config   = "/etc/slicelb/slicelb.toml"
	unitFile = "/lib/systemd/system/slicelb.service"
	dropins  = "/etc/systemd/system/slicelb.service.d"
	actor    = "/usr/local/bin/slicelb-e2e"
)

// backends that run in every test, and the two configurations that name them.
var (
	all      = []string{"127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"}
	oldOnes  = all[:2]
	newOnes  = all[2:]
	oldTOML  = vipTOML("db", vip, oldOnes...)
	newTOML  = vipTOML("db", vip, newOnes...)
	badTOML  = oldTOML + "\n[vip.bad]\nfrontends = [\"10.96.0.10:70000\"]\nnonsense = 1\n"
	grouping = "[group.web]\nslices = [\"web.slice\"]\n\n"
)

// vipTOML is a configuration with the group web and one VIP for it, over TCP and UDP.
func vipTOML(name, addr string, backends ...string) string {
	var b strings.Builder
	b.WriteString(grouping)
	fmt.Fprintf(&b, "[vip.%s]\nfrontends = [%q, %q]\nclients = [\"web\"]\n", name, addr, addr+"/udp")
	for _, a := range backends {
		fmt.Fprintf(&b, "\n[[vip.%s.backend]]\naddress = %q\n", name, a)
	}
	return b.String()
}

// install puts slicelb into the shared lab, as a package would, with what it
// takes to run in a lab: the visible cgroup root is not the hierarchy's.
func install(t *testing.T) *host {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a systemd")
	}
	h := &host{labtest.Shared(t), t}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		from, to string
		mode     os.FileMode
	}{
		{binary(t, ""), "/usr/sbin/slicelb", 0o755},
		{exe, actor, 0o755},
		{"../../packaging/slicelb.service", unitFile, 0o644},
		{"../../packaging/sysusers.d/slicelb.conf", "/etc/sysusers.d/slicelb.conf", 0o644},
	} {
		if err := h.Install(f.from, f.to, f.mode); err != nil {
			t.Fatal(err)
		}
	}
	h.must("systemd-sysusers", "/etc/sysusers.d/slicelb.conf")
	h.must("sh", "-c", "rm -rf /etc/slicelb "+dropins+" /run/systemd/system/slicelb.service* /etc/systemd/system/slicelb.service; mkdir -p /etc/slicelb")
	h.serve()
	h.must("systemctl", "daemon-reload")
	t.Cleanup(func() {
		if t.Failed() {
			h.log()
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := h.Run(ctx, "systemctl", "stop", unit); err != nil {
			t.Errorf("clean up: %v", err)
		}
		h.Run(ctx, "systemctl", "reset-failed", unit)
	})
	return h
}

// serve has the unit run the real daemon.
func (h *host) serve(flags ...string) {
	h.t.Helper()
	h.exec("/usr/sbin/slicelb serve --cgroup-root " + lab.CgroupRoot + strings.Join(flags, " "))
}

// exec has the unit run a command line.
func (h *host) exec(line string) {
	h.t.Helper()
	h.dropin("exec", "[Service]\nExecStart=\nExecStart="+line+"\n")
}

func (h *host) dropin(name, text string) {
	h.t.Helper()
	if err := h.WriteFile(dropins+"/"+name+".conf", []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) configure(toml string) {
	h.t.Helper()
	if err := h.WriteFile(config, []byte(toml), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// must runs a command in the lab that has to succeed.
func (h *host) must(name string, args ...string) string {
	h.t.Helper()
	out, err := h.Run(h.t.Context(), name, args...)
	if err != nil {
		h.t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(out)
}

// exit runs a command in the lab and returns its exit status and all it said.
func (h *host) exit(name string, args ...string) (int, string) {
	h.t.Helper()
	out, err := h.Command(h.t.Context(), name, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	if exit != nil {
		return exit.ExitCode(), string(out)
	}
	return 0, string(out)
}

// log shows what the daemon said.
func (h *host) log() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, _ := h.Run(ctx, "journalctl", "--unit="+unit, "--output=cat", "--lines=60", "--no-pager")
	state, _ := h.Run(ctx, "systemctl", "status", "--no-pager", "--lines=0", unit)
	h.t.Logf("journal:\n%s\n%s", out, state)
}

func (h *host) start() { h.t.Helper(); h.must("systemctl", "start", unit) }

// property asks systemd about the unit.
func (h *host) property(name string) string {
	h.t.Helper()
	return h.must("systemctl", "show", "--property="+name, "--value", unit)
}

func (h *host) number(name string) int {
	h.t.Helper()
	n, err := strconv.Atoi(h.property(name))
	if err != nil {
		h.t.Fatalf("%s: %v", name, err)
	}
	return n
}

// status asks the daemon; nil where none answers.
func (h *host) status() *api.Status {
	h.t.Helper()
	code, out := h.exit("/usr/sbin/slicelb", "status", "-o", "json")
	if code == 3 {
		return nil
	}
	s := new(api.Status)
	if err := json.Unmarshal([]byte(out), s); err != nil {
		h.t.Logf("status: exit %d: %s", code, out) // it ended while it was asked
		return nil
	}
	return s
}

// eventually polls until ok holds: within some time, and a minute more on a machine that
// does much else.
func (h *host) eventually(within time.Duration, what string, ok func() bool) {
	h.t.Helper()
	within += time.Minute
	deadline := time.Now().Add(within)
	for tick := time.Tick(20 * time.Millisecond); !ok(); <-tick {
		if time.Now().After(deadline) {
			h.t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// within logs how long something took. Where the counts are whole, and so are
// meant to be quoted, most of them must have been in time; a machine that does
// much else is late now and then.
func (h *host) within(limit time.Duration, what string, took []time.Duration) {
	h.t.Helper()
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	median := took[len(took)/2]
	h.t.Logf("%s: %v in the median, %v at most, of %d", what, median.Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), len(took))
	if scale.Factor() >= 1 && median > limit {
		h.t.Errorf("%s: more than %v", what, limit)
	}
}

// healthy waits until the daemon is well and its data plane is kept.
func (h *host) healthy() *api.Status {
	h.t.Helper()
	var s *api.Status
	h.eventually(10*time.Second, "status ok", func() bool {
		s = h.status()
		return s != nil && s.State == api.OK && s.DataPlane.Held.Store && h.property("ActiveState") == "active"
	})
	return s
}

// kill ends the daemon and returns when systemd has another one ready.
func (h *host) kill(signal string) {
	h.t.Helper()
	before := h.property("MainPID")
	h.must("kill", "-"+signal, before)
	h.eventually(20*time.Second, "restarted after "+signal, func() bool {
		pid := h.property("MainPID")
		return pid != before && pid != "0" && h.property("ActiveState") == "active"
	})
}

// actor is the test binary in a part, in a cgroup.
type running struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	out    *watched
	stderr bytes.Buffer
}

func (h *host) play(cgroup, role string, args ...string) *running {
	h.t.Helper()
	r := &running{out: &watched{grown: make(chan struct{}, 1)}}
	r.cmd = h.CommandIn(context.Background(), cgroup, actor, args...)
	r.cmd.Env = append(r.cmd.Env, roleVar+"="+role)
	r.cmd.Stdout, r.cmd.Stderr = r.out, &r.stderr
	var err error
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		h.t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	return r
}

// watched is output that can be waited for.
type watched struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{}
}

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.grown <- struct{}{}:
	default:
	}
	return w.text.Write(b)
}

func (w *watched) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := strings.Fields(w.text.String())
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}

// echo runs the backends until the test ends.
func (h *host) echo() {
	h.t.Helper()
	r := h.play("/backends", "backends", all...)
	h.t.Cleanup(func() {
		r.cmd.Process.Kill()
		r.cmd.Wait()
	})
	h.eventually(10*time.Second, "backends listen", func() bool { return r.out.last() == "listening" })
}

// load is clients in the group web, until it is stopped.
type load struct {
	*running
	h        *host
	once     sync.Once
	sum      tally
	mayClose int // connected UDP sockets
}

const loadClients = 4

func (h *host) load(may ...string) *load {
	h.t.Helper()
	l := &load{running: h.play("/web.slice/load.scope", "load", append([]string{vip, strconv.Itoa(loadClients)}, may...)...), h: h}
	h.t.Cleanup(func() { l.stop() })
	h.eventually(10*time.Second, "the load runs", func() bool { return l.connects() > 0 })
	return l
}

// connects is how many were made so far, in hundreds.
func (l *load) connects() int {
	n, _ := strconv.Atoi(l.out.last())
	return n
}

// more waits until n more connects were made.
func (l *load) more(n int) {
	l.h.t.Helper()
	until := l.connects() + n
	deadline := time.After(2*time.Minute + time.Duration(n)*time.Millisecond)
	for l.connects() < until {
		select {
		case <-l.out.grown:
		case <-deadline:
			l.h.t.Fatalf("the load is stuck at %d connects", l.connects())
		}
	}
}

func (l *load) stop() tally {
	l.once.Do(func() {
		l.stdin.Close()
		l.cmd.Wait()
		if err := json.Unmarshal(l.stderr.Bytes(), &l.sum); err != nil {
			l.h.t.Errorf("load: %v\n%s", err, l.stderr.Bytes())
		}
	})
	return l.sum
}

// losesBackends says that a backend is about to be taken away: each client may have
// a connected UDP socket to it that waits, and is closed (edge D38).
func (l *load) losesBackends() { l.mayClose += loadClients }

// flawless stops the load; nothing may have failed or gone astray.
func (l *load) flawless() tally {
	l.h.t.Helper()
	sum := l.stop()
	if sum.Closed > l.mayClose {
		l.h.t.Errorf("%d connected UDP sockets were closed, at most %d may be", sum.Closed, l.mayClose)
	}
	if sum.Failed > 0 || sum.Wrong > 0 || sum.Connects == 0 {
		l.h.t.Errorf("%d of %d connects and %d datagrams failed, %d were wrong:\n%s",
			sum.Failed, sum.Connects, sum.Datagrams, sum.Wrong, strings.Join(sum.Reasons, "\n"))
	}
	l.h.t.Logf("%d connects, %d datagrams, %d failed, %d wrong, %d closed, %v",
		sum.Connects, sum.Datagrams, sum.Failed, sum.Wrong, sum.Closed, sum.Backends)
	return sum
}

// ask makes one call from a cgroup and returns the backend, or the error.
func (h *host) ask(cgroup string) string {
	h.t.Helper()
	return h.askOf(cgroup, vip)
}

func (h *host) askOf(cgroup, vip string) string {
	h.t.Helper()
	r := h.play(cgroup, "load", append([]string{vip, "1"}, all...)...)
	// One round is enough: it ends as soon as its input does.
	r.stdin.Close()
	r.cmd.Wait()
	var sum tally
	if err := json.Unmarshal(r.stderr.Bytes(), &sum); err != nil {
		h.t.Fatalf("%v\n%s", err, r.stderr.Bytes())
	}
	if len(sum.Reasons) > 0 {
		return sum.Reasons[0]
	}
	var who []string
	for b := range sum.Backends {
		who = append(who, b)
	}
	slices.Sort(who)
	return strings.Join(who, " ")
}
