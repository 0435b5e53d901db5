package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
)

// A socket in another network namespace, whose backend is gone: the unit as it is
// counts it; with the drop-in of the examples it is closed, also by a process
// that only finds it. // edge D38
func TestTerminateByDropIn(t *testing.T) {
	h := install(t)
	const toml = "[vip.db]\nfrontends = [\"" + vip + "/udp\"]\n"
	h.configure(toml + "[[vip.db.backend]]\naddress = \"192.0.2.1:7001\"\n")
	h.start()
	h.healthy()
	h.must("systemd-run", "--quiet", "--collect", "--unit=slicelb-holder", "unshare", "--net", "bash", "-c",
		"ip link set lo up && ip address add 192.0.2.1/32 dev lo && exec 3<>/dev/udp/10.96.0.10/7000 && exec sleep infinity")
	h.eventually(20*time.Second, "a socket elsewhere", func() bool {
		s := h.status()
		return s != nil && len(s.VIPs) == 1 && s.VIPs[0].Counters.Connects == 1
	})
	h.configure(toml)
	h.must("slicelb", "reload")
	h.eventually(20*time.Second, "the socket is counted", func() bool {
		s := h.status()
		return s != nil && s.DataPlane.Sockets.Stuck == 1 && strings.Contains(strings.Join(s.Notes, "\n"), "terminate.conf")
	})

	example, err := os.ReadFile("../../packaging/examples/slicelb.service.d/terminate.conf")
	if err != nil {
		t.Fatal(err)
	}
	h.dropin("terminate", string(example))
	h.must("systemctl", "daemon-reload")
	h.must("systemctl", "restart", unit)
	h.eventually(20*time.Second, "the socket is closed", func() bool {
		s := h.status()
		return s != nil && s.DataPlane.Sockets == api.Sockets{Closed: 1}
	})
	if got := h.must("ps", "-o", "user=", "-p", h.property("MainPID")); got != "slicelb" {
		t.Errorf("the daemon runs as %q", got)
	}
	if got := h.must("systemctl", "is-active", "slicelb-holder.service"); got != "active" {
		t.Errorf("who held the socket: %s", got)
	}
}
