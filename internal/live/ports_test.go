package live

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// Two VIPs have an address in common, and one of them has reject_unknown_ports: a
// port that is nobody's is refused to those who see that VIP, whatever backend they
// would get and whether there is one, and is the address's own for the others. What
// is a frontend of either is that one's. // edge D18
func TestUnknownPorts(t *testing.T) {
	for _, address := range []string{"10.96.0.10", "[fd00:96::10]"} {
		t.Run(address, func(t *testing.T) {
			h := newHost(t)
			loopback := "127.0.0.1:0"
			if strings.HasPrefix(address, "[") {
				loopback = "[::1]:0"
			}
			serve := func(name string) string { return kerneltest.Serve(t, name, loopback).Addr.String() }
			a, canary, other := serve("a"), serve("canary"), serve("other")
			web, second, unknown := address+":80", address+":81", address+":82"
			kerneltest.Serve(t, "itself", web)
			kerneltest.Serve(t, "itself", unknown)
			conf := func(rest string) string {
				groups := ""
				for _, g := range []string{"web", "canary", "local"} {
					groups += fmt.Sprintf("[group.%s]\nslices = [\"%s.slice\"]\n", g, g)
				}
				return groups + vipOf("other", fmt.Sprintf("%q, %q", second, second+"/udp"), "", other) +
					vipOf("web", fmt.Sprintf("%q, %q", web, web+"/udp"), "reject_unknown_ports = true\nclients = [\"web\", \"canary\"]\nexcept = [\"local\"]\n"+rest, a) +
					"[[vip.web.for.canary.backend]]\naddress = \"" + canary + "\"\n"
			}
			h.serve(conf(""))
			clients := map[string]*kerneltest.Client{"host": kerneltest.Start(t, h.root)}
			for _, g := range []string{"web", "canary", "local"} {
				clients[g] = kerneltest.Start(t, h.root.Make(t, g+".slice"))
			}
			h.until("the groups are mapped", func() bool {
				return answer(t, clients["web"], web) == "a" && answer(t, clients["canary"], web) == "canary"
			}, h.log.String)
			get := func(when, to string, want map[string]string) {
				t.Helper()
				for name, c := range clients {
					if got := answer(t, c, to); got != want[name] {
						t.Errorf("%s: %s at %s gets %s, want %s", when, name, to, got, want[name])
					}
				}
			}
			everybody := func(what string) map[string]string {
				return map[string]string{"host": what, "web": what, "canary": what, "local": what}
			}
			refused := map[string]string{"host": "itself", "web": "ECONNREFUSED", "canary": "ECONNREFUSED", "local": "itself"}
			get("up", web, map[string]string{"host": "itself", "web": "a", "canary": "canary", "local": "itself"})
			get("up", unknown, refused)
			get("up", second, everybody("other"))

			h.slicelb("backend", "maint", "web", a)
			get("down but for a view", web, map[string]string{"host": "itself", "web": "EHOSTUNREACH", "canary": "canary", "local": "itself"})
			get("down but for a view", unknown, refused)
			h.slicelb("backend", "maint", "web", canary)
			get("down", web, map[string]string{"host": "itself", "web": "EHOSTUNREACH", "canary": "EHOSTUNREACH", "local": "itself"})
			get("down", unknown, refused)
			get("down", second, everybody("other"))

			h.reload(conf("when_down = \"pass\"\n"))
			get("down, and left alone", web, everybody("itself"))
			get("down, and left alone", unknown, everybody("itself"))
			h.slicelb("backend", "ready", "web", a)
			h.slicelb("backend", "ready", "web", canary)
			h.reload(conf("hidden = \"reject\"\n"))
			refused["host"] = "EHOSTUNREACH"
			get("hidden", unknown, refused)
		})
	}
}

// answer is who answers a client at an address, or the error: of a TCP connection, of
// connected UDP and of a datagram, which are to be the same.
func answer(t *testing.T, c *kerneltest.Client, to string) string {
	t.Helper()
	tcp, udp, loose := c.TCP(to), c.UDP(to), c.UDP(to)
	names := map[string]bool{}
	for _, call := range []struct {
		*kerneltest.Socket
		asked error
	}{{tcp, tcp.Connect(to)}, {udp, errors.Join(udp.Connect(to), udp.Send("?"))}, {loose, loose.SendTo("?", to, 0)}} {
		name, err := "", call.asked
		if err == nil {
			name, err = call.Receive()
		}
		var errno unix.Errno
		switch {
		case errors.As(err, &errno):
			name = unix.ErrnoName(errno)
		case err != nil:
			t.Fatal(err)
		}
		names[strings.TrimSpace(name)] = true
		if err := call.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), " ")
}
