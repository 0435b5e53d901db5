package live

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// rolled runs f while two clients connect without pause: no connect fails, and each is
// answered.
func (h *host) rolled(f func()) {
	h.Helper()
	l := h.load(2)
	defer func() { // also where f ends the test
		n, failed := 0, map[string]int{}
		for _, c := range l.end() {
			switch n++; {
			case c.Errno != 0:
				failed[c.Errno.Error()]++
			case c.Server == "":
				failed["no answer"]++
			}
		}
		h.Logf("%d connects, failed: %v", n, failed)
		if n == 0 || len(failed) > 0 {
			h.Errorf("of %d connects some failed: %v", n, failed)
		}
	}()
	f()
}

// Each of two backends in turn is taken out and back in, as fast as the commands
// return: one is always in use, whatever its checks said meanwhile.
func TestRollingOrders(t *testing.T) {
	for _, way := range []string{"drain", "maint"} {
		t.Run(way, func(t *testing.T) {
			h := newHost(t)
			var addrs []string
			processes := map[string]*exec.Cmd{}
			for range 2 {
				addr, p := h.process()
				addrs = append(addrs, addr)
				processes[addr] = p
			}
			// Two successes of checks every two seconds would take some time.
			h.serve(vipOf("web", `"`+vip+`"`, "", addrs...) + "[vip.web.health]\ninterval = \"2s\"\ntimeout = \"1s\"\nfall = 1\n")
			h.until("both are up", func() bool { return h.backend("web", addrs[0]).Share == 0.5 }, h.log.String)
			h.rolled(func() {
				for i := range 6 {
					addr := addrs[i%2]
					h.slicelb("backend", way, "web", addr, "--wait", "--timeout", "20s")
					if i >= 4 { // down for so long that its checks have failed
						if err := processes[addr].Process.Kill(); err != nil {
							t.Fatal(err)
						}
						_ = processes[addr].Wait() // killed: its status is known
						if way == "drain" {
							h.until("it is down by its checks", func() bool {
								c := h.backend("web", addr).Check
								return c != nil && c.State == "down"
							}, h.log.String)
						}
						processes[addr] = h.processAt(addr)
					}
					h.slicelb("backend", "ready", "web", addr)
					if b := h.backend("web", addr); b.Share == 0 || b.Reason != "" {
						t.Errorf("ready, and not in use: %+v", b)
					}
				}
			})
		})
	}
}

// Backends that are units are restarted one after the other, as fast as systemd would:
// nothing was heard yet of the one's new run when the other's stop begins.
func TestRollingUnits(t *testing.T) {
	for name, health := range map[string]string{"plain": "", "checked": "[vip.web.health]\ninterval = \"2s\"\ntimeout = \"1s\"\n"} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			m := h.newManager()
			var units []string
			for _, name := range []string{"a", "b"} {
				s := kerneltest.Serve(t, name, "127.0.0.1:0")
				units = append(units, fmt.Sprintf("web@%d.service", s.Addr.Port()))
				m.turn(units[len(units)-1], "active", true)
			}
			h.serve("[vip.web]\nfrontends = [\"" + vip + "\"]\n[[vip.web.backend]]\nunit = \"web@*.service\"\naddress = \"127.0.0.1:%i\"\n" + health)
			c := kerneltest.Start(t, h.root)
			h.until("both serve", func() bool { return who(t, c) == "a b" }, h.log.String)
			h.rolled(func() {
				for i := range 8 {
					unit := units[i%2]
					m.turn(unit, "deactivating", false)
					h.slicelb("backend", "drain", "--unit", unit, "--wait", "--timeout", "20s")
					m.turn(unit, "", false)
					m.turn(unit, "active", true)
				}
			})
		})
	}
}

// A unit that is active before it listens: its next run gets nothing until a check has
// found it, whether slicelb saw it stop or not, and starts slowly.
func TestUnitListensLate(t *testing.T) {
	h := newHost(t)
	m := h.newManager()
	a := kerneltest.Serve(t, "a", "127.0.0.1:0")
	addr, p := h.process()
	at := netip.MustParseAddrPort(addr)
	unit := fmt.Sprintf("web@%d.service", at.Port())
	m.turn(unit, "active", true)
	h.serve(vipOf("web", `"`+vip+`"`, "", a.Addr.String()) + "[[vip.web.backend]]\nunit = \"web@*.service\"\naddress = \"127.0.0.1:%i\"\n" +
		"[vip.web.health]\ninterval = \"500ms\"\nslow_start = \"10m\"\n")
	serves := func() bool { b := h.find(at); return b != nil && b.Share > 0 }
	h.until("both serve", serves, h.log.String)
	h.rolled(func() {
		for _, seen := range []bool{true, false} {
			if seen {
				m.turn(unit, "deactivating", false)
				h.until("its stop is seen", func() bool { return h.find(at).UnitState == "deactivating" }, h.log.String)
			}
			h.slicelb("backend", "drain", "--unit", unit, "--wait", "--timeout", "20s")
			if err := p.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = p.Wait() // killed: its status is known
			began := time.Now()
			m.turn(unit, "active", true)
			h.until("its first check has failed", func() bool {
				b := h.find(at)
				return b != nil && b.Order == "" && b.UnitState == "active" && b.Check != nil && b.Check.State == "down"
			}, h.log.String)
			p = h.processAt(addr)
			h.until("it serves", serves, h.log.String)
			if b := h.find(at); b.Check.Since.Before(began) || !strings.HasPrefix(b.Reason, "starts slowly: 10 %") {
				t.Errorf("stop seen %t: %+v, check %+v", seen, b, b.Check)
			}
		}
	})
}
