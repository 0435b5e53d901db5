package e2e

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

// The order at a boot: what runs workloads starts after the VIPs are in the
// kernel, what is in a slice with the shipped drop-in too, and neither waits
// for ever.
func TestOrderAtBoot(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML)
	file := func(path, text string) {
		t.Helper()
		if err := h.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Run(context.Background(), "rm", "-f", path) })
	}
	// Each is a workload whose only call is at its start.
	call := "[Service]\nType=oneshot\nRemainAfterExit=yes\nEnvironment=" + roleVar + "=load\n" +
		"ExecStart=/bin/sh -c '" + actor + " " + vip + " 1 " + strings.Join(oldOnes, " ") + " </dev/null 2>&1'\n"
	runtimes := []string{"nomad.service", "podman.service", "docker.service", "lxc.service",
		"incus.service", "lxd.service", "snap.lxd.daemon.service"}
	for _, name := range runtimes {
		file("/run/systemd/system/"+name, call+"Slice=web.slice\n")
	}
	file("/run/systemd/system/web-client.service", call+"Slice=web.slice\n")
	file("/run/systemd/system/boot.target", "[Unit]\nWants="+unit+" "+strings.Join(runtimes, " ")+"\n")
	clean := func() {
		for _, do := range []string{"stop", "reset-failed"} {
			h.Run(context.Background(), "systemctl", append([]string{do, unit, "boot.target", "web-client.service"}, runtimes...)...)
		}
	}
	t.Cleanup(clean)
	// said is the sum that the last start of a client printed.
	said := func(name string) (sum tally) {
		t.Helper()
		id := h.must("systemctl", "show", "--property=InvocationID", "--value", name)
		h.eventually(10*time.Second, name+"'s sum", func() bool {
			out := h.must("journalctl", "--output=cat", "--no-pager", "_SYSTEMD_INVOCATION_ID="+id)
			for line := range strings.Lines(out) {
				if json.Unmarshal([]byte(line), &sum) == nil && sum.Connects > 0 {
					return true
				}
			}
			return false
		})
		return sum
	}
	reached := func(names ...string) {
		t.Helper()
		for _, name := range names {
			if sum := said(name); sum.Failed > 0 || sum.Wrong > 0 {
				t.Errorf("%s: %+v", name, sum)
			}
		}
	}

	// One transaction, as at a boot; the daemon is slower than all.
	h.dropin("slow", "[Service]\nExecStartPre=/bin/sleep 1\n")
	h.must("systemctl", "daemon-reload")
	h.must("systemctl", "start", "boot.target")
	reached(runtimes...)
	clean()

	// A slice that is not told to wait does not, and doctor says so.
	doctor := func() string {
		t.Helper()
		_, out := h.exit("slicelb", "doctor", "--cgroup-root", "/sys/fs/cgroup")
		return out
	}
	if got := doctor(); !strings.Contains(got, "not after slicelb.service: web.slice") {
		t.Errorf("doctor, without the drop-in:\n%s", got)
	}
	text, err := os.ReadFile("../../packaging/examples/web.slice.d/slicelb.conf")
	if err != nil {
		t.Fatal(err)
	}
	file("/run/systemd/system/web.slice.d/slicelb.conf", string(text))
	h.must("systemctl", "daemon-reload")
	if got := doctor(); !strings.Contains(got, "what starts in web.slice waits for slicelb.service") {
		t.Errorf("doctor, with the drop-in:\n%s", got)
	}
	// The slice brings slicelb along, and waits. At a boot it does not exist yet.
	h.exit("systemctl", "stop", "web.slice")
	h.must("systemctl", "start", "web-client.service")
	reached("web-client.service")
	clean()

	// A daemon that never gets ready holds it up for TimeoutStartSec=, no longer:
	// the slice starts all the same.
	if got := h.property("TimeoutStartUSec"); got != "1min" {
		t.Errorf("TimeoutStartSec= of the unit is %s", got)
	}
	h.exec("/bin/sleep infinity")
	h.dropin("slow", "[Service]\nTimeoutStartSec=2s\n")
	h.must("systemctl", "daemon-reload")
	h.exit("systemctl", "stop", "web.slice")
	h.must("systemctl", "start", "web-client.service")
	if sum := said("web-client.service"); sum.Connects == 0 || sum.Failed == 0 {
		t.Errorf("without a data plane: %+v", sum)
	}
}

// The bus, and the network, may come after the daemon.
//
// edge T11
func TestLateBusAndNetwork(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(oldTOML + "[vip.db.health]\ninterval = \"200ms\"\n")
	bus := []string{"dbus.socket", "dbus.service"}
	back := func() {
		h.Run(context.Background(), "ip", "link", "set", "lo", "up")
		h.Run(context.Background(), "systemctl", append([]string{"start"}, bus...)...)
	}
	t.Cleanup(back)
	h.must("systemctl", append([]string{"stop"}, bus...)...)
	h.must("ip", "link", "set", "lo", "down")

	h.start() // returns: it is ready
	h.eventually(20*time.Second, "the daemon says what is missing", func() bool {
		s := h.status()
		return s != nil && s.Tracking.Mode != "bus" && s.DataPlane.Attached
	})
	if got := h.ask("/web.slice"); !strings.Contains(got, "unreachable") && !strings.Contains(got, "no route") {
		t.Errorf("without a network a call gets %s", got)
	}

	back()
	h.eventually(30*time.Second, "the bus is used and the backends are up", func() bool {
		s := h.status()
		return s != nil && s.Tracking.Mode == "bus" && len(s.VIPs) == 1 && s.VIPs[0].Up == 2
	})
	if got := h.ask("/web.slice"); strings.Trim(got, "0127.: ") != "" {
		t.Errorf("with bus and network a call gets %s", got)
	}
	h.healthy()
}
