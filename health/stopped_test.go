package health

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const checkerVar = "SLICELB_HEALTH_CHECKER"

// playChecker checks some backends of a port, strictly, and says how many are up when all
// are, and how often a verdict changed until standard input ended.
func playChecker() {
	var port uint16
	var n int
	fmt.Sscan(os.Getenv(checkerVar), &port, &n)
	check := &Check{Type: HTTP, Path: "/", Expect: ok2xx, Interval: time.Second, Timeout: 900 * time.Millisecond, Fall: 1, Rise: 1}
	list := make([]Target, n)
	for i := range list {
		list[i] = Target{VIP: "a", Addr: loopback(1+i, port), Check: check}
	}
	checker := New()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	done := make(chan error, 1)
	go func() { done <- checker.Run(ctx) }()
	checker.Set(list)
	settled, flips, last := false, 0, map[netip.AddrPort]State{}
	for {
		select {
		case v := <-checker.Verdicts():
			up := 0
			for tg, now := range v.All() {
				if settled && last[tg.Addr] != now.State {
					flips++
				}
				last[tg.Addr] = now.State
				if now.State == Up {
					up++
				}
			}
			if up == len(list) && !settled {
				settled = true
				fmt.Println("up", up)
			}
		case err := <-done:
			fmt.Println("flips", flips, checker.Stats().Stalled.Milliseconds(), err)
			return
		}
	}
}

// playedChecker is playChecker in a process of its own.
type playedChecker struct {
	*exec.Cmd
	in  io.Closer
	out io.Reader
}

// playing returns when all n backends are up.
func playing(t *testing.T, port uint16, n int) *playedChecker {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", checkerVar, port, n))
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
	t.Cleanup(func() { cmd.Process.Kill() })
	if _, err := fmt.Fscanf(out, "up %d\n", &n); err != nil {
		t.Fatal(err)
	}
	return &playedChecker{cmd, in, out}
}

func (p *playedChecker) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// end returns how many verdicts changed, and for how many ms it noticed to have been
// stopped.
func (p *playedChecker) end(t *testing.T) (flips, stalled int) {
	t.Helper()
	p.in.Close()
	if _, err := fmt.Fscanf(p.out, "flips %d %d", &flips, &stalled); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
	return flips, stalled
}

// A process that is stopped for a while, with checks of strict and impatient
// backends under way, takes none out when it goes on.
func TestStopped(t *testing.T) { // fault F19
	ports := servers(t)
	p := playing(t, ports[len(ports)-1], 200)
	for range 2 {
		p.signal(t, syscall.SIGSTOP)
		<-time.After(3 * time.Second) // the pause itself
		p.signal(t, syscall.SIGCONT)
		<-time.After(2 * time.Second) // two rounds of checks
	}
	flips, stalled := p.end(t)
	if flips > 0 {
		t.Errorf("%d verdicts changed", flips)
	}
	if stalled < 5000 {
		t.Errorf("stopped for 6 s, %d ms noticed", stalled)
	}
}

// The same in the middle of a check: what was answered meanwhile counts, and what is
// answered soon after.
func TestStoppedUnderWay(t *testing.T) { // fault F19
	const ok = "HTTP/1.1 200 OK\r\n\r\n"
	for _, after := range []time.Duration{0, 50 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			var hold atomic.Bool
			held := make(chan net.Conn)
			asked := make(chan bool, 100)
			port := serve(t, "tcp", "127.1.0.1:0", func(c net.Conn) {
				head(c)
				if hold.CompareAndSwap(true, false) {
					held <- c
				} else {
					io.WriteString(c, ok)
				}
				asked <- true
				io.Copy(io.Discard, c)
			}).Port()
			p := playing(t, port, 1)
			hold.Store(true)
			c := <-held
			p.signal(t, syscall.SIGSTOP)
			<-time.After(1500 * time.Millisecond) // the pause itself: more than the rest of the timeout
			if after > 0 {
				p.signal(t, syscall.SIGCONT)
				<-time.After(after) // that long the server thinks on
			}
			io.WriteString(c, ok)
			p.signal(t, syscall.SIGCONT)
			for len(asked) > 0 {
				<-asked
			}
			<-asked // the next check
			if flips, _ := p.end(t); flips > 0 {
				t.Errorf("%d verdicts changed", flips)
			}
		})
	}
}
