package live

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// command is the program as an operator calls it.
func (h *host) command(args ...string) *exec.Cmd {
	h.Helper()
	path, err := build()
	if err != nil {
		h.Fatal(err)
	}
	socket := filepath.Join(filepath.Dir(h.config), "run", "api.sock")
	return exec.Command(path, append(args, "--socket", socket)...)
}

// slicelb runs a command, which has to succeed.
func (h *host) slicelb(args ...string) {
	h.Helper()
	if out, err := h.command(args...).CombinedOutput(); err != nil {
		h.Fatalf("slicelb %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// reach makes sockets until one has gone to the backend.
func reach(t *testing.T, backend string, open func() (*kerneltest.Socket, string)) *kerneltest.Socket {
	t.Helper()
	for range 200 {
		s, name := open()
		if name == backend {
			return s
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("no call of 200 went to %s", backend)
	return nil
}

func openTCP(t *testing.T, c *kerneltest.Client) func() (*kerneltest.Socket, string) {
	return func() (*kerneltest.Socket, string) {
		t.Helper()
		s := c.TCP(vip)
		if err := s.Connect(vip); err != nil {
			t.Fatal(err)
		}
		name, err := s.Receive()
		if err != nil {
			t.Fatal(err)
		}
		return s, strings.TrimSpace(name)
	}
}

// askUDP sends one datagram of a socket that is not connected, and hears who answers.
func askUDP(t *testing.T, s *kerneltest.Socket) string {
	t.Helper()
	if err := s.SendTo("?", vip, 0); err != nil {
		t.Fatal(err)
	}
	name, from, err := s.ReceiveFrom()
	if err != nil || from != vip {
		t.Fatalf("answer from %s, %v", from, err)
	}
	return strings.TrimSpace(name)
}

func openUDP(t *testing.T, c *kerneltest.Client) func() (*kerneltest.Socket, string) {
	return func() (*kerneltest.Socket, string) {
		t.Helper()
		s := c.UDP(vip)
		return s, askUDP(t, s)
	}
}

// From when the command returns nothing new goes to a drained backend; what it
// has stays, over a reload too, and can be waited for. edge D36
func TestDrain(t *testing.T) {
	h := newHost(t)
	a, b := kerneltest.Serve(t, "a", "127.0.0.1:0"), kerneltest.Serve(t, "b", "127.0.0.1:0")
	toml := vipOf("web", `"`+vip+`", "`+vip+`/udp"`, "", a.Addr.String(), b.Addr.String())
	h.serve(toml)
	c := kerneltest.Start(t, h.root)
	conn := reach(t, "a", openTCP(t, c))
	flow := reach(t, "a", openUDP(t, c))
	keeps := func(when string) { t.Helper(); keeps(t, when, "a", conn, flow) }
	nothingNew := func(when string) { t.Helper(); onlyTo(t, when, "b", c) }

	h.slicelb("backend", "drain", "web", a.Addr.String())
	keeps("drained")
	nothingNew("drained")
	h.reload(toml + "# again\n")
	keeps("after a reload")
	nothingNew("after a reload")

	// The wait ends in time, and says what is left.
	out, err := h.command("backend", "drain", "web", a.Addr.String(), "--wait", "--timeout", "3s").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), a.Addr.String()+" of web has 1 connection") {
		t.Errorf("with a connection left: %v\n%s", err, out)
	}
	// As ExecStop= of a service that has ended by itself it does not wait.
	ended := h.command("backend", "drain", "web", a.Addr.String(), "--wait")
	ended.Env = append(os.Environ(), "SERVICE_RESULT=success", "EXIT_CODE=exited", "EXIT_STATUS=0")
	if out, err := ended.CombinedOutput(); err != nil || !strings.Contains(string(out), "its connections are not waited for") {
		t.Errorf("of a service that has ended: %v\n%s", err, out)
	}
	// It ends when the last connection does, and not before.
	w := h.wait("web", a.Addr.String())
	w.goesOn(300 * time.Millisecond)
	keeps("waited for")
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	w.ends(0, "")

	// In maintenance, flows choose anew.
	h.slicelb("backend", "maint", "web", a.Addr.String())
	if got := askUDP(t, flow); got != "b" {
		t.Errorf("in maintenance: the flow goes to %s", got)
	}
	h.slicelb("backend", "ready", "web", a.Addr.String())
	reach(t, "a", openTCP(t, c))
	reach(t, "a", openUDP(t, c))
}

// keeps checks that a connection and a flow of a backend go on.
func keeps(t *testing.T, when, backend string, conn, flow *kerneltest.Socket) {
	t.Helper()
	if err := conn.Send("still there"); err != nil {
		t.Errorf("%s: %v", when, err)
	}
	if got, err := conn.Receive(); err != nil || got != "still there" {
		t.Errorf("%s: the connection: %q, %v", when, got, err)
	}
	for range 20 {
		if got := askUDP(t, flow); got != backend {
			t.Errorf("%s: the flow goes to %s", when, got)
		}
	}
}

// onlyTo checks that new connections and flows go to one backend.
func onlyTo(t *testing.T, when, backend string, c *kerneltest.Client) {
	t.Helper()
	for i := range 250 {
		what, open := "connection", openTCP(t, c)
		if i >= 200 {
			what, open = "flow", openUDP(t, c)
		}
		s, name := open()
		if name != backend {
			t.Errorf("%s: a %s goes to %s", when, what, name)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The same by weight 0, and by a unit that stops: while that runs to its end, and while
// the next run starts. edge D36
func TestDrainOtherwise(t *testing.T) {
	h := newHost(t)
	m := h.newManager()
	a, b := kerneltest.Serve(t, "a", "127.0.0.1:0"), kerneltest.Serve(t, "b", "127.0.0.1:0")
	unit := fmt.Sprintf("web@%d.service", a.Addr.Port())
	fronts := `"` + vip + `", "` + vip + `/udp"`
	byWeight := func(weight int) string {
		return vipOf("web", fronts, "", b.Addr.String()) + fmt.Sprintf("[[vip.web.backend]]\naddress = %q\nweight = %d\n", a.Addr, weight)
	}
	byUnit := vipOf("web", fronts, "", b.Addr.String()) + "[[vip.web.backend]]\nunit = \"web@*.service\"\naddress = \"127.0.0.1:%i\"\n"
	h.serve(byWeight(1))
	c := kerneltest.Start(t, h.root)
	sockets := func() (conn, flow *kerneltest.Socket) {
		t.Helper()
		return reach(t, "a", openTCP(t, c)), reach(t, "a", openUDP(t, c))
	}
	conn, flow := sockets()
	h.reload(byWeight(0))
	keeps(t, "weight 0", "a", conn, flow)
	onlyTo(t, "weight 0", "b", c)
	h.reload(byWeight(2))
	conn, flow = sockets()

	m.turn(unit, "active", true)
	h.reload(byUnit)
	h.until("the unit is a backend", func() bool { be := h.find(a.Addr); return be != nil && be.Share > 0 }, h.log.String)
	keeps(t, "by unit", "a", conn, flow)
	for _, state := range []string{"deactivating", "activating"} {
		m.turn(unit, state, false)
		h.until(state, func() bool { be := h.find(a.Addr); return be != nil && be.UnitState == state && be.Share == 0 }, h.log.String)
		keeps(t, state, "a", conn, flow)
		onlyTo(t, state, "b", c)
	}
	m.turn(unit, "failed", false)
	h.until("failed", func() bool { be := h.find(a.Addr); return be != nil && be.State == "down" }, h.log.String)
	if got := askUDP(t, flow); got != "b" {
		t.Errorf("failed: the flow goes to %s", got)
	}
}

// drain_timeout ends a drain: what the backend has chooses anew.
func TestDrainTimeout(t *testing.T) {
	h := newHost(t)
	a, b := kerneltest.Serve(t, "a", "127.0.0.1:0"), kerneltest.Serve(t, "b", "127.0.0.1:0")
	h.serve(vipOf("web", `"`+vip+`/udp"`, `drain_timeout = "2s"`, a.Addr.String(), b.Addr.String()))
	c := kerneltest.Start(t, h.root)
	flow := reach(t, "a", openUDP(t, c))
	began := time.Now()
	h.slicelb("backend", "drain", "web", a.Addr.String())
	h.until("the flow has chosen anew", func() bool { return askUDP(t, flow) == "b" }, h.log.String)
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("after %v, before the end of drain_timeout", took)
	}
	if r := h.backend("web", a.Addr.String()).Reason; !strings.Contains(r, "drain_timeout is over") {
		t.Errorf("the reason is %q", r)
	}
}

// Nobody blocks a stop: without a daemon the command ends at once, with one that
// hangs in time.
func TestDrainWithoutDaemon(t *testing.T) {
	h := newHost(t)
	h.slicelb("version") // it is built
	begun := time.Now()
	var exit *exec.ExitError
	drain := []string{"backend", "drain", "--unit", "web.service", "--wait", "--timeout", "20s"}
	if out, err := h.command(drain...).CombinedOutput(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("no daemon: %v\n%s", err, out)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("no daemon: %v", took)
	}
	h.serve(vipOf("web", `"`+vip+`"`, ""))
	if out, err := h.command(drain...).CombinedOutput(); !errors.As(err, &exit) || exit.ExitCode() != 4 {
		t.Errorf("no such unit: %v\n%s", err, out)
	}
	if err := h.daemon.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer h.daemon.Process.Signal(unix.SIGCONT)
	h.until("stopped", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.daemon.Process.Pid))
		return err == nil && strings.Contains(string(stat), ") T ")
	}, h.log.String)
	drain[len(drain)-1] = "1s"
	begun = time.Now()
	if out, err := h.command(drain...).CombinedOutput(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("a daemon that hangs: %v\n%s", err, out)
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("a daemon that hangs: %v", took)
	}
}

// Without a backend to use, callers get what when_down says, each group what its
// own view says. edge D37
func TestWhenDown(t *testing.T) {
	h := newHost(t)
	a, b := kerneltest.Serve(t, "a", "127.0.0.1:0"), kerneltest.Serve(t, "b", "127.0.0.1:0")
	canary := kerneltest.Serve(t, "canary", "127.0.0.1:0")
	kerneltest.Serve(t, "itself", vip)
	conf := func(down, own string) string {
		view := "[vip.web.for.canary]\n"
		if own != "" {
			view += "when_down = \"" + own + "\"\n"
		}
		return "[group.canary]\nslices = [\"canary.slice\"]\n" +
			vipOf("web", `"`+vip+`", "`+vip+`/udp"`, `when_down = "`+down+`"`, a.Addr.String(), b.Addr.String()) +
			view + "[[vip.web.for.canary.backend]]\naddress = \"" + canary.Addr.String() + "\"\n"
	}
	h.serve(conf("reject", ""))
	plain := kerneltest.Start(t, h.root)
	special := kerneltest.Start(t, h.root.Make(t, "canary.slice"))
	h.until("the group is mapped", func() bool { return who(t, special) == "canary" }, h.log.String)

	for _, down := range []string{"reject", "use-all", "pass"} {
		for _, own := range []string{"", "reject", "use-all", "pass"} {
			t.Run(down+" "+own, func(t *testing.T) {
				h.reload(conf(down, own))
				for _, s := range []*kerneltest.Server{a, b, canary} {
					h.slicelb("backend", "ready", "web", s.Addr.String())
				}
				if got := whoever(t, plain) + ", " + whoever(t, special); got != "a b, canary" {
					t.Errorf("with all: %s", got)
				}
				h.slicelb("backend", "maint", "web", a.Addr.String())
				if got := whoever(t, plain); got != "b" {
					t.Errorf("with one left: %s", got)
				}
				h.slicelb("backend", "drain", "web", b.Addr.String())
				if got := whoever(t, special); got != "canary" {
					t.Errorf("the group has a backend, and gets %s", got)
				}
				h.slicelb("backend", "drain", "web", canary.Addr.String())
				if got, want := whoever(t, plain), map[string]string{"reject": "EHOSTUNREACH", "use-all": "a b", "pass": "itself"}[down]; got != want {
					t.Errorf("with none left: %s, want %s", got, want)
				}
				if own == "" {
					own = down
				}
				if got, want := whoever(t, special), map[string]string{"reject": "EHOSTUNREACH", "use-all": "canary", "pass": "itself"}[own]; got != want {
					t.Errorf("the group, with none left: %s, want %s", got, want)
				}
				h.slicelb("backend", "ready", "web", a.Addr.String())
				if got := whoever(t, plain); got != "a" {
					t.Errorf("with one back: %s", got)
				}
			})
		}
	}
}

// whoever is who, for TCP and for UDP, connected and not, which are to be the same.
func whoever(t *testing.T, c *kerneltest.Client) string {
	t.Helper()
	names := map[string]bool{}
	for range 30 {
		for name := range strings.FieldsSeq(answer(t, c, vip)) {
			names[name] = true
		}
	}
	udp := strings.Join(slices.Sorted(maps.Keys(names)), " ")
	if tcp := who(t, c); tcp != udp {
		return tcp + " by TCP, " + udp + " by UDP"
	}
	return udp
}

// who answers many connects of a client, each name once, or the error of all.
func who(t *testing.T, c *kerneltest.Client) string {
	t.Helper()
	r, err := c.Run(kerneltest.Load{To: vip, Count: 60})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, c := range r.Connections {
		switch {
		case c.Errno != 0:
			seen[unix.ErrnoName(c.Errno)] = true
		default:
			seen[c.Server] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(seen)), " ")
}
