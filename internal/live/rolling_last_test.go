package live

import (
	"fmt"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// Of two units one is stopped while the other starts, and takes its time: the stop waits
// for that one, and the server that is to stop serves meanwhile. Its ExecStop= asks when
// it is known to stop already.
func TestStopWhileAnotherStarts(t *testing.T) {
	h := newHost(t)
	m := h.newManager()
	var units []string
	for _, name := range []string{"a", "b"} {
		s := kerneltest.Serve(t, name, "127.0.0.1:0")
		units = append(units, fmt.Sprintf("web@%d.service", s.Addr.Port()))
		m.turn(units[len(units)-1], "active", true)
	}
	h.serve("[vip.web]\nfrontends = [\"" + vip + "\"]\n[[vip.web.backend]]\nunit = \"web@*.service\"\naddress = \"127.0.0.1:%i\"\n")
	c := kerneltest.Start(t, h.root)
	h.until("both serve", func() bool { return who(t, c) == "a b" }, h.log.String)
	h.rolled(func() {
		for i := range 4 {
			one, other := units[i%2], units[1-i%2]
			m.turn(one, "deactivating", false)
			h.slicelb("backend", "drain", "--unit", one, "--wait", "--timeout", "20s")
			m.turn(one, "activating", true)
			h.until("one starts", func() bool { return who(t, c) != "a b" }, h.log.String)
			m.turn(other, "deactivating", false)
			w := h.wait("--unit", other, "--timeout", "20s")
			w.goesOn(500 * time.Millisecond)
			m.turn(one, "active", false)
			w.ends(0, "")
			m.turn(other, "", false)
			m.turn(other, "active", true)
			h.until("both serve again", func() bool { return who(t, c) == "a b" }, h.log.String)
		}
	})
}
