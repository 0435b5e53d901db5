package live

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

const vip = "10.96.0.10:80"

// A backend is killed under load. With passive health, what the kernel sees fail has it
// checked, and out, at once, long before its next check is due: no connect fails later
// than 50 ms after the first that did. With active checks alone all new connects go
// elsewhere within one interval and one timeout. The machine may be busy: the best of
// some rounds has to do so, and each within some time more.
func TestFailover(t *testing.T) {
	const rounds, slack = 4, 2 * time.Second
	tests := []struct {
		name, health string
		most         time.Duration
		since        func(killed, first time.Duration) time.Duration
	}{
		{
			"passive", "interval = \"60s\"\ntimeout = \"20s\"\npassive = true", 50 * time.Millisecond,
			func(_, first time.Duration) time.Duration { return first },
		},
		{
			"active", "interval = \"1s\"\ntimeout = \"500ms\"", 1500 * time.Millisecond,
			func(killed, _ time.Duration) time.Duration { return killed },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			a, b := kerneltest.Serve(t, "a", "127.0.0.1:0"), kerneltest.Serve(t, "b", "127.0.0.1:0")
			doomed, process := h.process()
			h.serve(vipOf("web", `"`+vip+`"`, "", a.Addr.String(), b.Addr.String(), doomed) + "[vip.web.health]\n" + tt.health + "\n")
			var least time.Duration
			for round := range rounds {
				h.until("all are up", func() bool { return h.backend("web", doomed).Share > 0 }, h.log.String)
				killed, first, last := h.failover(doomed, process)
				took := last - tt.since(killed, first)
				t.Logf("the last one failed %v after the first, %v after the kill", last-first, last-killed)
				if took > tt.most+slack {
					t.Errorf("a connect failed %v later, want %v and some time", took, tt.most)
				}
				if round == 0 || took < least {
					least = took
				}
				h.slicelb("backend", "drain", "web", doomed)
				process = h.processAt(doomed)
				h.slicelb("backend", "ready", "web", doomed)
			}
			if least > tt.most {
				t.Errorf("the best of %d rounds: a connect failed %v later, want %v at most", rounds, least, tt.most)
			}
		})
	}
}

// failover kills a backend while two clients connect without pause. It returns when
// that was, and when the first and the last connect began that failed: CLOCK_MONOTONIC.
func (h *host) failover(doomed string, process *exec.Cmd) (killed, first, last time.Duration) {
	h.Helper()
	l := h.load(2)
	l.more(200)
	downs := strings.Count(h.log.String(), "backend is down")
	killed = kerneltest.Monotonic()
	if err := process.Process.Kill(); err != nil {
		h.Error(err)
	}
	// Not by asking: whoever reads the tables keeps them from being written.
	h.until("down", func() bool { return strings.Count(h.log.String(), "backend is down") > downs }, h.log.String)
	l.more(200)
	h.until("out", func() bool { return h.backend("web", doomed).Share == 0 }, h.log.String)
	out := kerneltest.Monotonic()
	l.more(200)

	failed, connects := 0, 0
	for _, c := range l.end() {
		connects++
		if c.Errno == 0 && c.Server != "" {
			if c.Server == doomed && c.At > killed {
				h.Errorf("answered by a backend that is dead: %+v", c)
			}
			continue
		}
		// What it had accepted ends with it: by a reset, or with no answer.
		if c.Until < killed && c.Errno != unix.ECONNRESET && c.Errno != 0 {
			h.Errorf("failed before the kill: %+v", c)
		}
		failed++
		if first == 0 || c.At < first {
			first = c.At
		}
		last = max(last, c.At)
	}
	if failed == 0 {
		h.Fatalf("%d connects, and none met the dead backend", connects)
	}
	if last > out {
		h.Errorf("a connect failed %v after the backend was out", last-out)
	}
	return killed, first, last
}

// A user who makes connects to a backend fail in a network namespace of their own
// takes it from nobody. // fault F31
func TestForeignFailuresEjectNothing(t *testing.T) {
	h := newHost(t)
	const backend = "192.0.2.1:8080"
	kerneltest.Serve(t, "a", backend)
	h.serve(vipOf("web", `"`+vip+`"`, "", backend) + "[vip.web.health]\ninterval = \"60s\"\ntimeout = \"1s\"\nfall = 1\npassive = true\n")
	h.until("up", func() bool { return h.backend("web", backend).Share > 0 }, h.log.String)
	checks := h.backend("web", backend).Check.Count

	var stranger *kerneltest.Client
	kerneltest.NewNetns(t).Do(t, func() {
		kerneltest.AddAddress(t, "192.0.2.1")
		stranger = kerneltest.Start(t, h.root)
	})
	r, err := stranger.Run(kerneltest.Load{To: vip, Count: 500})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Connections {
		if c.Errno != unix.ECONNREFUSED {
			t.Fatalf("in the namespace where nobody listens: %+v", c)
		}
	}
	c := kerneltest.Start(t, h.root)
	if r, err = c.Run(kerneltest.Load{To: vip, Count: 100}); err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Connections {
		if c.Errno != 0 || c.Server != "a" {
			t.Fatalf("at home: %+v", c)
		}
	}
	if b := h.backend("web", backend); b.Check.State != "up" || b.Check.Count != checks {
		t.Errorf("checked because of another namespace: %d checks before, now %+v", checks, b.Check)
	}
}

// All backends are killed, first those of a group: its calls, and then all, are answered
// as when_down says, as soon as their checks have failed. // edge D37, fault F22
func TestAllDown(t *testing.T) {
	// Three failures an interval apart would take eight seconds.
	const interval, timeout, slack = 4 * time.Second, time.Second, 2 * time.Second
	h := newHost(t)
	a, first := h.process()
	b, second := h.process()
	own, third := h.process()
	toml := func(down string) string {
		return "[group.canary]\nslices = [\"canary.slice\"]\n" + vipOf("web", `"`+vip+`"`, "when_down = \""+down+"\"", a, b) +
			fmt.Sprintf("[vip.web.health]\ninterval = \"%v\"\ntimeout = \"%v\"\n", interval, timeout) +
			fmt.Sprintf("[[vip.web.for.canary.backend]]\naddress = %q\n", own)
	}
	h.serve(toml("reject"))
	plain, special := kerneltest.Start(t, h.root), kerneltest.Start(t, h.root.Make(t, "canary.slice"))
	h.until("the group is mapped, and all are up", func() bool {
		return who(t, special) == own && h.backend("web", a).Share == 0.5
	}, h.log.String)
	kill := func(what string, c *kerneltest.Client, processes ...*exec.Cmd) {
		t.Helper()
		killed := kerneltest.Monotonic()
		for _, p := range processes {
			if err := p.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		h.until("rejected", func() bool { return who(t, c) == "EHOSTUNREACH" }, h.log.String)
		took := (kerneltest.Monotonic() - killed).Round(time.Millisecond)
		t.Logf("%s: rejected %v after the kill", what, took)
		if took > interval+timeout+slack {
			t.Errorf("%s: rejected %v after the kill, want one interval and one timeout: %v", what, took, interval+timeout)
		}
	}
	kill("a group's own", special, third)
	if got := who(t, plain); !strings.Contains(got, a) || !strings.Contains(got, b) {
		t.Errorf("the others get %s", got)
	}
	kill("the VIP's", plain, first, second)
	h.reload(toml("use-all"))
	for _, c := range []*kerneltest.Client{plain, special} {
		if got := who(t, c); got != "ECONNREFUSED" {
			t.Errorf("with all of them: %s", got)
		}
	}
}
