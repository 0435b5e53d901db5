package live

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/kerneltest"
)

// held is a connected socket and who answers on it.
type held struct {
	*kerneltest.Socket
	server string
	udp    bool
}

// hold connects sockets to the VIP until each server has one of each kind.
func hold(t *testing.T, c *kerneltest.Client, servers ...string) []held {
	t.Helper()
	var out []held
	for _, udp := range []bool{true, false} {
		have := map[string]bool{}
		for tries := 0; len(have) < len(servers); tries++ {
			if tries == 1000 {
				t.Fatalf("only %v answer", have)
			}
			s := held{Socket: c.TCP(vip), udp: udp}
			if udp {
				s.Close()
				s.Socket = c.UDP(vip)
			}
			if err := s.Connect(vip); err != nil {
				t.Fatal(err)
			}
			if udp {
				if err := s.Send("x"); err != nil {
					t.Fatal(err)
				}
			}
			answer, err := s.Receive()
			if err != nil {
				t.Fatal(err)
			}
			s.server = strings.TrimSpace(answer)
			if have[s.server] {
				s.Close()
				continue
			}
			have[s.server] = true
			out = append(out, s)
		}
	}
	return out
}

func (s held) String() string {
	if s.udp {
		return "UDP to " + s.server
	}
	return "TCP to " + s.server
}

// works says whether the socket is as it was.
func (s held) works() error {
	if err := s.Send("x"); err != nil {
		return err
	}
	_, err := s.Receive()
	return err
}

func closedSockets(h *host) uint64 {
	s, err := h.client.Status(h.Context())
	if err != nil {
		h.Fatal(err)
	}
	return s.DataPlane.Sockets.Closed
}

// Backends leave the configuration, are taken out, are drained: sockets are
// closed, or are not. // edge D38
func TestTerminate(t *testing.T) {
	h := newHost(t)
	h.unit = true
	servers := map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		servers[name] = kerneltest.Serve(t, name, "127.0.0.1:0").Addr.String()
	}
	config := func(terminate string, names ...string) string {
		var list []string
		for _, n := range names {
			list = append(list, servers[n])
		}
		return vipOf("web", fmt.Sprintf("%q, %q", vip, vip+"/udp"), "terminate = \""+terminate+"\"", list...)
	}
	h.serve(config("all", "a", "b", "c"))
	c := kerneltest.Start(t, h.root)
	sockets := hold(t, c, "a", "b", "c")
	direct := held{Socket: c.TCP(servers["a"]), server: "a directly"}
	if err := direct.Connect(servers["a"]); err != nil {
		t.Fatal(err)
	}
	if _, err := direct.Receive(); err != nil {
		t.Fatal(err)
	}

	order := func(name, state string) {
		t.Helper()
		if _, err := h.client.SetBackend(t.Context(), api.BackendChange{VIP: "web", Address: servers[name], State: state}); err != nil {
			t.Fatal(err)
		}
	}
	order("b", "drain")
	h.reload(config("all", "b", "c")) // without a
	h.until("sockets to a are closed", func() bool { return closedSockets(h) == 2 }, h.log.String)
	order("c", "maint")
	h.until("sockets to c are closed", func() bool { return closedSockets(h) == 4 }, h.log.String)
	for _, s := range sockets {
		if s.server == "b" {
			if err := s.works(); err != nil {
				t.Errorf("%s, which drains: %v", s, err)
			}
			continue
		}
		if _, err := s.Receive(); err != unix.ECONNABORTED {
			t.Errorf("%s: %v", s, err)
		}
	}
	if err := direct.works(); err != nil {
		t.Errorf("%s: %v", direct, err)
	}

	// What is not wanted is not closed; the sweep for UDP is the sign that one was made.
	order("c", "ready")
	h.reload(config("udp", "b", "c"))
	sockets = hold(t, c, "c")
	h.reload(config("udp", "b"))
	h.until("the UDP socket is closed", func() bool { return closedSockets(h) == 5 }, h.log.String)
	for _, s := range sockets {
		if s.udp { // connected no more, and the next receive says why
			if err := s.Send("x"); err != unix.EDESTADDRREQ {
				t.Errorf("send on %s: %v", s, err)
			}
			if _, err := s.Receive(); err != unix.ECONNABORTED {
				t.Errorf("%s: %v", s, err)
			}
		} else if err := s.works(); err != nil {
			t.Errorf("%s with terminate = udp: %v", s, err)
		}
	}
}

// A policy that comes to deny a VIP closes what went through it, as the VIP says, and
// what is not denied stays; when it is gone they may connect again. // threat P10
func TestTerminateDenied(t *testing.T) {
	h := newHost(t)
	h.unit = true
	server := kerneltest.Serve(t, "a", "127.0.0.1:0").Addr.String()
	allowed := vipOf("web", fmt.Sprintf("%q, %q", vip, vip+"/udp"), "terminate = \"all\"", server)
	h.serve(allowed)
	c := kerneltest.Start(t, h.root)
	sockets := hold(t, c, "a")
	h.reload(allowed + "\n[policy]\n[[policy.rule]]\nfrom = [\"any\"]\nto = [\"192.0.2.0/24\"]\naction = \"deny\"\n")
	for _, s := range sockets {
		if err := s.works(); err != nil {
			t.Errorf("%s, which is not denied: %v", s, err)
		}
	}
	h.reload(allowed + "\n[policy]\n[[policy.rule]]\nfrom = [\"any\"]\nto = [\"web\"]\naction = \"deny\"\n")
	h.until("what is denied is closed", func() bool { return closedSockets(h) == 2 }, h.log.String)
	for _, s := range sockets {
		if _, err := s.Receive(); err != unix.ECONNABORTED {
			t.Errorf("%s: %v", s, err)
		}
		if err := s.Connect(vip); s.udp && err != unix.EPERM {
			t.Errorf("%s: connect again: %v", s, err)
		}
	}
	h.reload(allowed)
	hold(t, c, "a")
}

// Sockets in another network namespace are counted by a daemon that has no
// privileges but the unit's, and closed by one that may enter it; also in one that
// belongs to another user namespace, as a rootless container's. // edge D38
func TestTerminateElsewhere(t *testing.T) {
	for _, tt := range []struct{ unit, rootless bool }{{true, false}, {false, false}, {true, true}, {false, true}} {
		t.Run(fmt.Sprintf("unit=%v,rootless=%v", tt.unit, tt.rootless), func(t *testing.T) {
			unit := tt.unit
			h := newHost(t)
			h.unit = unit
			const backend = "192.0.2.1:8080"
			kerneltest.Serve(t, "home", backend)
			front := fmt.Sprintf("%q", vip+"/udp")
			h.serve(vipOf("web", front, "", backend))
			var s *kerneltest.Socket
			if tt.rootless {
				s = kerneltest.StartRootless(t, h.root, "192.0.2.1").UDP(vip)
			} else {
				kerneltest.NewNetns(t).Do(t, func() {
					kerneltest.Serve(t, "there", backend)
					s = kerneltest.Start(t, h.root).UDP(vip)
				})
			}
			if err := s.Connect(vip); err != nil {
				t.Fatal(err)
			}
			h.reload(vipOf("web", front, ""))
			if unit {
				h.await("the socket is counted", func(s *api.Status) bool {
					return s.DataPlane.Sockets.Stuck == 1 && strings.Contains(strings.Join(s.Notes, "\n"), "terminate.conf")
				})
				if err := s.Send("x"); err != nil && !tt.rootless { // where nobody answers
					t.Errorf("what cannot be closed: %v", err)
				}
				return
			}
			h.await("the socket is closed", func(s *api.Status) bool {
				return s.DataPlane.Sockets == api.Sockets{Closed: 1}
			})
			if _, err := s.Receive(); err != unix.ECONNABORTED {
				t.Errorf("receive: %v", err)
			}
		})
	}
}
