package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/lab"
	"github.com/slicelb/slicelb/internal/scale"
)

// playMoved opens a connection of TCP and one of UDP, and uses both when a line comes,
// before it makes another: moved VIP. It prints its pid when they are open, and then who
// answered the old ones and the new one; all must be called by the VIP.
func playMoved(args []string) int {
	vip := netip.MustParseAddrPort(args[0])
	for in := bufio.NewScanner(os.Stdin); ; {
		stream, err := net.DialTimeout("tcp", vip.String(), callTimeout)
		if err != nil {
			return fail(err)
		}
		datagrams, err := net.DialTimeout("udp", vip.String(), callTimeout)
		if err != nil {
			return fail(err)
		}
		fmt.Println(os.Getpid())
		if !in.Scan() {
			return 0
		}
		var who []string
		for _, c := range []net.Conn{stream, datagrams} {
			c.SetDeadline(time.Now().Add(callTimeout))
			_, err := io.WriteString(c, "x\n")
			b := make([]byte, 256)
			n := 0
			if err == nil {
				n, err = c.Read(b)
			}
			if err == nil {
				var backend string
				if backend, err = backendOf(string(b[:n]), "x\n"); err == nil {
					who = append(who, backend)
				}
			}
			if err == nil {
				err = isPeer(c.(syscall.Conn), vip) // as the kernel says now
			}
			if err == nil {
				err = c.Close()
			}
			if err != nil {
				return fail(err)
			}
		}
		again, err := callTCP(vip, "x\n")
		if err != nil {
			return fail(err)
		}
		fmt.Println(strings.Join(append(who, again), ","))
	}
}

// A living process is moved from group to group: its next connect is the new group's,
// what it has open goes on as it was. edge T21
func TestProcessMoves(t *testing.T) {
	h := identify(t)
	h.start()
	h.healthy()
	places := []struct{ cgroup, who string }{
		{"/web.slice/a.scope", "127.0.0.1:7001"}, {"/fresh.slice", "127.0.0.1:7002"}, {"/roles", "127.0.0.1:7005"},
		{"/web.slice", "127.0.0.1:7001"}, {"/nomad.slice/b.scope/deep", "127.0.0.1:7004"}, {"/nomad.slice", "127.0.0.1:7004"},
		{"/web.slice/a.scope", "127.0.0.1:7001"},
	}
	h.removes("/web.slice/a.scope", "/fresh.slice", "/nomad.slice")
	r := h.play(places[0].cgroup, "moved", vip)
	ended := false
	t.Cleanup(func() {
		r.stdin.Close()
		if !ended {
			r.cmd.Wait()
		}
	})
	says := func(what string, n int) string {
		t.Helper()
		h.eventually(20*time.Second, what, func() bool {
			if h.gone(r) {
				ended = true
				t.Fatalf("%v: %s", r.cmd.Wait(), r.stderr.Bytes())
			}
			return len(strings.Fields(r.out.all())) >= n
		})
		return strings.Fields(r.out.all())[n-1]
	}
	for i, to := range places[1:] {
		from := places[i]
		pid := says("connected in "+from.cgroup, 2*i+1)
		dir := lab.CgroupRoot + to.cgroup
		h.must("sh", "-c", fmt.Sprintf("mkdir -p %s && echo %s >%s/cgroup.procs", dir, pid, dir))
		if _, err := io.WriteString(r.stdin, "go on\n"); err != nil {
			t.Fatal(err)
		}
		want := strings.Join([]string{from.who, from.who, to.who}, ",")
		if got := says("calls in "+to.cgroup, 2*i+2); got != want {
			t.Errorf("moved from %s to %s: %s, want %s", from.cgroup, to.cgroup, got, want)
		}
	}
}

// A slice goes from one group to another by a reload, and back, under load: each connect
// is the one's or the other's, from when the reload is done the new one's, and nobody
// is without a group. edge T22
func TestSliceMovesByReload(t *testing.T) {
	h := identify(t)
	swapped := strings.NewReplacer(`["web.slice"]`, `["fresh.slice"]`, `["fresh.slice"]`, `["web.slice"]`).Replace(identities)
	h.start()
	h.healthy()
	l := h.load("127.0.0.1:7001", "127.0.0.1:7002") // the host's is 7005
	s := h.sample("/web.slice")
	who := map[bool]string{false: "127.0.0.1:7001", true: "127.0.0.1:7002"}
	n := max(6, scale.Count(200))
	for i := range n {
		now := i%2 == 0
		h.configure(map[bool]string{false: identities, true: swapped}[now])
		h.must("slicelb", "reload")
		got := h.answered("after a reload", h.run("firsts", vip, "6", "web.slice", "moved-%d.scope"))
		if got[who[now]] != 6 {
			t.Errorf("reload %d: first instructions in web.slice were answered by %v, want %s", i, got, who[now])
		}
		l.more(100)
	}
	sum := l.flawless()
	for _, backend := range who {
		if sum.Backends[backend] == 0 {
			t.Errorf("%s answered nobody", backend)
		}
	}
	got := s.end()
	if got.Missing > 0 || got.Changed == 0 {
		t.Errorf("%+v", got)
	}
	t.Logf("%d reloads; %d cgroups looked up %d times each", n, got.Cgroups, got.Passes)
}
