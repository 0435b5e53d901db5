package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
)

// checkedTOML is a configuration of which more than the files is stored: verdicts.
func checkedTOML() string {
	return "[daemon]\nslots = 4096\n\n" + oldTOML + "\n[vip.db.health]\ntype = \"tcp\"\ninterval = \"200ms\"\ntimeout = \"200ms\"\n"
}

// Restarts leave nothing behind in the descriptor store, and raise no alarm.
func TestRestartsLeaveNothing(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(checkedTOML())
	h.start()
	h.healthy()
	whole := func() int {
		n := 0
		h.eventually(10*time.Second, "systemd holds what is wanted", func() bool {
			n = h.number("NFileDescriptorStore")
			s := h.status()
			return s != nil && s.DataPlane.Held.Want == n && s.DataPlane.Held.Count == n
		})
		return n
	}
	first := whole()
	for range 4 {
		h.must("systemctl", "restart", unit)
		// Longer than it takes until the verdicts are stored.
		for begin := time.Now(); time.Since(begin) < 1500*time.Millisecond; {
			if code, out := h.exit("slicelb", "status"); code != 0 {
				t.Fatalf("status: exit %d\n%s", code, out)
			}
		}
		// The first may have been counted before the verdicts were stored.
		if n := whole(); n > first+1 {
			t.Errorf("systemd holds %d descriptors, at first %d", n, first)
		}
	}
}

// A descriptor store that is full keeps the last good configuration, whatever is
// killed. fault F28
func TestFullStore(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(checkedTOML())
	h.start()
	h.healthy()
	h.eventually(10*time.Second, "the verdicts are stored", func() bool {
		s := h.status()
		return s != nil && h.number("NFileDescriptorStore") == s.DataPlane.Held.Want && s.DataPlane.Held.Count == s.DataPlane.Held.Want
	})
	h.dropin("full", fmt.Sprintf("[Service]\nFileDescriptorStoreMax=%d\n", h.number("NFileDescriptorStore")))
	h.must("systemctl", "daemon-reload")
	for range 3 {
		h.kill("KILL")
	}
	h.configure(badTOML)
	h.kill("KILL")
	s := h.status()
	if s == nil || !s.Config.LastGood || len(s.VIPs) != 1 || !s.DataPlane.Adopted {
		t.Errorf("status: %+v", s)
	}
	h.eventually(15*time.Second, "status says that the store is full", func() bool {
		_, out := h.exit("slicelb", "status")
		return strings.Contains(out, "the descriptor store is full")
	})
}

// A configuration that the tables have no room for: refused by a reload, not served
// by a restart, and the end of a first start. fault F14
func TestDoesNotFit(t *testing.T) {
	h := install(t)
	h.echo()
	var big strings.Builder
	big.WriteString(checkedTOML() + "\n[vip.big]\nfrontends = [\"10.96.0.13:7000\"]\nalgorithm = \"maglev\"\n")
	for i := range 60 {
		fmt.Fprintf(&big, "[[vip.big.backend]]\naddress = \"127.0.1.%d:7001\"\n", i+1)
	}
	h.configure(checkedTOML())
	h.start()
	h.healthy()
	l := h.load(oldOnes...)
	h.configure(big.String())
	if code, out := h.exit("slicelb", "reload"); code != 78 || !strings.Contains(out, "table slots") {
		t.Errorf("reload: exit %d\n%s", code, out)
	}
	serves := func(after string) {
		t.Helper()
		var s *api.Status
		h.eventually(10*time.Second, "ready "+after, func() bool { s = h.status(); return s != nil && h.property("ActiveState") == "active" })
		if !s.Config.LastGood || !s.DataPlane.Adopted || !strings.Contains(strings.Join(s.Problems, "\n"), "table slots") {
			t.Errorf("%s: %+v", after, s)
		}
	}
	h.kill("KILL")
	serves("after a kill")
	h.must("systemctl", "restart", unit)
	serves("after a restart")
	l.flawless()

	h.must("systemctl", "stop", unit)
	h.exit("systemctl", "start", unit)
	if got := h.property("ExecMainStatus"); got != "78" {
		t.Errorf("a first start ends with %s", got)
	}
}
