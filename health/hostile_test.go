package health

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Servers of the worst kinds, and a good one, by their place in the output of
// the process that plays them.
var kinds = []func(net.Conn){
	says("HTTP/1.1 200 OK\r\n\r\n"),
	func(c net.Conn) { // trickles
		head(c)
		for _, b := range []byte("HTTP/1.1 200 OK and so on, and on") {
			c.Write([]byte{b})
			time.Sleep(100 * time.Millisecond) // that slow is this server
		}
	},
	func(c net.Conn) { // floods
		head(c)
		flood := []byte("HTTP/1.1 100 Continue\r\n" + strings.Repeat("x", 64<<10))
		for {
			if _, err := c.Write(flood); err != nil {
				return
			}
		}
	},
	func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) },          // resets
	func(c net.Conn) { io.Copy(io.Discard, c) },                 // takes, and says nothing
	func(c net.Conn) { head(c); io.WriteString(c, "\x00\xff") }, // says nonsense
	thinks, // last: it is a good one
}

const serverVar = "SLICELB_HEALTH_SERVERS"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(serverVar) != "":
		playServers()
		return
	case os.Getenv(checkerVar) != "":
		playChecker()
		return
	}
	os.Exit(m.Run())
}

// thinks for a while, and loses patience with a client that is away for long.
func thinks(c net.Conn) {
	c.SetDeadline(time.Now().Add(time.Second))
	head(c)
	<-time.After(200 * time.Millisecond) // that long is the thinking
	io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
}

// playServers listens on every loopback address, a port for each kind, until
// standard input ends.
func playServers() {
	for _, f := range kinds {
		ln, err := net.Listen("tcp", "0.0.0.0:0")
		if err != nil {
			panic(err)
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					f(c)
				}()
			}
		}()
		fmt.Println(ln.Addr().(*net.TCPAddr).Port)
	}
	io.Copy(io.Discard, os.Stdin)
}

// servers plays kinds in another process, whose time is not ours, until the test
// ends. It returns their ports.
func servers(t testing.TB) []uint16 {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverVar+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	ports := make([]uint16, len(kinds))
	for i := range ports {
		if _, err := fmt.Fscanln(out, &ports[i]); err != nil {
			t.Fatal(err)
		}
	}
	return ports
}

// loopback is the n-th address of many that are this host.
func loopback(n int, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(n >> 8), byte(n)}), port)
}

// A thousand servers of the worst kinds beside ten good ones: checks of all are
// on time, descriptors are bounded, and the good ones stay up.
func TestHostileServers(t *testing.T) { // fault F23
	const bad, good = 1000, 10
	ports := servers(t)
	check := &Check{Type: HTTP, Path: "/", Expect: ok2xx, Interval: 2 * time.Second, Timeout: time.Second, Fall: 1, Rise: 1}
	// The good ones share their process with those that flood: they get the time for it.
	patient := *check
	patient.Timeout = 10 * time.Second
	var list []Target
	for i := range good {
		list = append(list, Target{VIP: "a", Addr: loopback(1+i, ports[0]), Check: &patient})
	}
	for i := range bad {
		list = append(list, Target{VIP: "a", Addr: loopback(100+i, ports[1+i%(len(ports)-2)]), Check: check})
	}
	// What else runs on this machine may hold us up: the best of some rounds is on time.
	const rounds = 4
	for round := 1; ; round++ {
		late := checkHostile(t, list, good)
		if late <= check.Interval/10 {
			break
		}
		if round == rounds {
			t.Fatalf("checks are late by %v in the last of %d rounds, and in each by more than %v", late, rounds, check.Interval/10)
		}
	}
}

// checkHostile has each target checked three times. The first ones are good. It
// returns by how much checks were late, beyond the time that the process stood still.
func checkHostile(t *testing.T, list []Target, good int) (late time.Duration) {
	t.Helper()
	checker := start(t)
	checker.Set(list)
	before, most, worst := descriptors(t), 0, time.Duration(0)
	begun := time.Now()
	judged := func() bool { // each at least three times
		for _, r := range checker.Results() {
			if r.Checks < 3 {
				return false
			}
		}
		return checker.Stats().Targets > 0
	}
	for tick := time.Tick(20 * time.Millisecond); !judged(); {
		select {
		case <-tick:
		case v := <-checker.Verdicts():
			for tg, got := range v.All() {
				if tg.Addr.Port() == list[0].Addr.Port() && got.State == Down {
					t.Fatalf("%s, which is good: %+v", tg.Addr, checker.Results()[Endpoint{tg.VIP, tg.Addr}])
				}
			}
		}
		most = max(most, descriptors(t)-before)
		worst = max(worst, checker.Stats().Late)
		if time.Since(begun) > time.Minute {
			t.Fatalf("not three checks of each in a minute: %+v", checker.Stats())
		}
	}
	s := checker.Stats()
	t.Logf("%d checks, %d failed, %d void, late by %v at most, %d descriptors at most, stalled %v", s.Checks, s.Failed, s.Void, worst, most, s.Stalled)
	if most > len(list)+2*maxSpare {
		t.Errorf("%d descriptors for %d backends", most, len(list))
	}
	results := checker.Results()
	for i, tg := range list {
		want := Down
		if i < good {
			want = Up
		}
		if r := results[Endpoint{tg.VIP, tg.Addr}]; r.State != want {
			t.Fatalf("%s: %+v, want %s", tg.Addr, r, want)
		}
	}
	checker.Set(nil)
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.Tick(10 * time.Millisecond); checker.Stats().Open > 0 || checker.Stats().Targets > 0; <-tick {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", checker.Stats())
		}
	}
	if n := descriptors(t); n > before+2*maxSpare {
		t.Errorf("descriptors: %d before, %d after", before, n)
	}
	return worst - s.Stalled
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
