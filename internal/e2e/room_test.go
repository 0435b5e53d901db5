package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
)

const manyUnit = `[Unit]
Description=A backend that nobody calls, %i
[Service]
ExecStart=sleep infinity
`

// One VIP for whose units the slots do not do, and one that has little.
var roomTOML = "[daemon]\nslots = 4096\n\n" + vipTOML("db", vip, "127.0.0.1:7001", "127.0.0.1:7002") + `
[vip.db.health]
interval = "200ms"

[vip.many]
frontends = ["10.96.0.11:7000"]
algorithm = "maglev"

[[vip.many.backend]]
unit = "many@*.service"
address = "127.0.0.1:%i"
`

// More units than there is room for stop neither another VIP's failover nor an order,
// nor any kind of start. edge T24, fault F14
func TestMoreUnitsThanRoom(t *testing.T) {
	h := install(t)
	h.units()
	if err := h.WriteFile("/etc/systemd/system/many@.service", []byte(manyUnit), 0o644); err != nil {
		t.Fatal(err)
	}
	h.must("systemctl", "daemon-reload")
	t.Cleanup(func() { h.forget("many@") })
	h.must("systemctl", "start", "echo@7001", "echo@7002", "many@1001")
	h.configure(roomTOML)
	h.start()
	h.healthy()

	var many []string
	for i := range 65 {
		many = append(many, fmt.Sprintf("many@%d", 1001+i))
	}
	h.must("systemctl", append([]string{"start"}, many...)...)
	short := func(what string) {
		t.Helper()
		var s *api.Status
		h.eventually(20*time.Second, what, func() bool {
			s = h.status()
			return s != nil && len(s.VIPs) == 2 && len(s.Problems) == 1 && strings.HasPrefix(s.Problems[0], "vip.many: ") &&
				strings.Contains(s.Problems[0], " of its 65 backends that are units are left out: table slots ")
		})
		t.Logf("%s: %s", what, s.Problems[0])
	}
	of := func(what, want string) {
		t.Helper()
		h.eventually(10*time.Second, what, func() bool { return h.ask("/web.slice/ask.scope") == want })
	}
	short("65 units")
	h.must("systemctl", "kill", "--signal=KILL", "echo@7002")
	of("another VIP's backend fails", "127.0.0.1:7001")
	h.must("systemctl", "restart", "echo@7002")
	of("and is back", "127.0.0.1:7001 127.0.0.1:7002")
	h.must("slicelb", "backend", "maint", "db", "127.0.0.1:7001")
	of("an order", "127.0.0.1:7002")

	h.must("systemctl", "restart", unit)
	short("after a restart")
	of("the order is still there", "127.0.0.1:7002")
	h.kill("KILL")
	short("after a kill")
	h.must("slicelb", "backend", "ready", "db", "127.0.0.1:7001")
	of("the order is taken back", "127.0.0.1:7001 127.0.0.1:7002")
	h.must("systemctl", "stop", unit)
	h.start()
	short("after a first start")
	of("a first start", "127.0.0.1:7001 127.0.0.1:7002")
	h.must("slicelb", "reload")

	h.must("systemctl", append([]string{"stop"}, many[10:]...)...)
	h.healthy()
}
