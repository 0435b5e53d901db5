package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// playDial makes one call after the other: dial KIND ADDRESS [KIND ADDRESS]... .
// It prints, a line each, "ok" or what the call failed with.
func playDial(args []string) int {
	for ; len(args) > 1; args = args[2:] {
		fmt.Println(dial(args[0], netip.MustParseAddrPort(args[1])))
	}
	return 0
}

// playInsist makes the same calls again and again until standard input ends, the
// first of them before it prints "calling". At the end it prints what came of
// each kind and address, and how often, in JSON.
func playInsist(args []string) int {
	got := map[string]answers{}
	for done, first := untilInputEnds(), true; ; {
		for i := 0; i+1 < len(args); i += 2 {
			what := args[i] + " " + args[i+1]
			if got[what] == nil {
				got[what] = answers{}
			}
			got[what][dial(args[i], netip.MustParseAddrPort(args[i+1]))]++
		}
		if first {
			fmt.Println("calling")
			first = false
		}
		select {
		case <-done:
			b, err := json.Marshal(got)
			if err != nil {
				return fail(err)
			}
			fmt.Println(string(b))
			return 0
		default:
		}
	}
}

// dial makes one call. Of tcp and udp it is connect(), of sendto a datagram; raw
// and udplite are sockets that no hook of connect sees.
func dial(kind string, to netip.AddrPort) string {
	name := func(err error) string {
		var errno syscall.Errno
		switch {
		case err == nil:
			return "ok"
		case errors.As(err, &errno):
			return unix.ErrnoName(errno)
		}
		return err.Error()
	}
	socket := func(typ, proto int) string {
		fd, err := unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, proto)
		if err == nil {
			err = unix.Close(fd)
		}
		return name(err)
	}
	switch kind {
	case "tcp", "udp":
		c, err := net.DialTimeout(kind, to.String(), callTimeout)
		if err == nil {
			if tcp, ok := c.(*net.TCPConn); ok {
				tcp.SetLinger(0) // no TIME_WAIT: ports would run out
			}
			err = c.Close()
		}
		return name(err)
	case "sendto":
		c, err := net.ListenUDP("udp", nil)
		if err != nil {
			return name(err)
		}
		defer c.Close()
		_, err = c.WriteToUDPAddrPort([]byte("x\n"), to)
		return name(err)
	case "raw":
		return socket(unix.SOCK_RAW, unix.IPPROTO_RAW)
	case "udplite":
		return socket(unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE)
	}
	return "no such kind: " + kind
}

// dials makes calls from a cgroup, each "KIND ADDRESS", and holds them to what is
// said of them.
func (h *host) dials(cgroup string, want map[string]string) {
	h.t.Helper()
	var calls, args []string
	for call := range want {
		calls = append(calls, call)
		args = append(args, strings.Fields(call)...)
	}
	r := h.play(cgroup, "dial", args...)
	r.stdin.Close()
	for i, got := range strings.Split(strings.TrimSpace(r.end(h)), "\n") {
		if got != want[calls[i]] {
			h.t.Errorf("%s: %s: %s, want %s", cgroup, calls[i], got, want[calls[i]])
		}
	}
}

// insist makes calls from a cgroup until it is stopped.
func (h *host) insist(cgroup string, calls ...string) (stop func() map[string]answers) {
	h.t.Helper()
	r := h.play(cgroup, "insist", strings.Fields(strings.Join(calls, " "))...)
	h.t.Cleanup(func() {
		r.stdin.Close()
		r.cmd.Wait()
	})
	h.eventually(10*time.Second, "somebody calls", func() bool { return r.out.last() == "calling" })
	var got map[string]answers
	return func() map[string]answers {
		h.t.Helper()
		if got != nil {
			return got
		}
		r.stdin.Close()
		text := strings.TrimPrefix(r.end(h), "calling\n")
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			h.t.Fatalf("%v\n%s", err, text)
		}
		return got
	}
}

// only says what is wrong where calls did not all end in the same.
func only(t *testing.T, what string, got answers, want string) {
	t.Helper()
	t.Logf("%s: %s", what, got)
	if len(got) != 1 || got[want] == 0 {
		t.Errorf("%s: not always %s: %s", what, want, got)
	}
}
