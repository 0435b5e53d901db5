package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/lab"
)

// cycled is what somebody saw who looked at a slice that comes and goes all the time.
type cycled struct {
	IDs     int `json:"ids"`
	There   int `json:"there"`   // looks at it while it was there
	Missing int `json:"missing"` // of these, without a group
	Wrong   int `json:"wrong"`   // in another than at first
	Stale   int `json:"stale"`   // ids that had a group after their directory was gone
}

// playCycled looks at the slice PATH in the table of the daemon PID until standard input
// ends: cycled PID PATH.
func playCycled(args []string) int {
	table, err := cgroupTable(args[0])
	if err != nil {
		return fail(err)
	}
	defer table.Close()
	path := filepath.Join(lab.CgroupRoot, args[1])
	var c cycled
	var id uint64
	var first uint32
	fmt.Println("looking")
	for done := untilInputEnds(); ; {
		now, err := inodeOf(path)
		if err == nil && now != id {
			c.IDs++
		}
		if id != 0 && (err != nil || now != id) {
			// The directory is out of sight a moment before its entry goes.
			gone := time.Now()
			for late := false; groupIn(table, id) != 0; late = time.Since(gone) > time.Second {
				if late { // this look began when the time was over
					c.Stale++
					break
				}
			}
		}
		if id = now; err == nil {
			g := groupIn(table, id)
			if again, err := inodeOf(path); err == nil && again == id { // it was there meanwhile
				c.There++
				switch {
				case g == 0:
					c.Missing++
				case first == 0:
					first = g
				case g != first:
					c.Wrong++
				}
			}
		}
		select {
		case <-done:
			json.NewEncoder(os.Stderr).Encode(c)
			return 0
		default:
		}
	}
}

// pending reports whether the daemon waits for a slice.
func (h *host) pending(slice string) bool {
	h.t.Helper()
	s := h.status()
	return s != nil && slices.ContainsFunc(s.Tracking.Pending, func(p string) bool { return strings.Trim(p, "/") == slice })
}

// systemd takes over a slice that mkdir made, and reads its units again: its cgroups have
// their groups all the time, and the kernel's entries are the ones that they were. Before,
// it is pending; after, it is again. edge T3, edge T5
func TestAdoption(t *testing.T) {
	h := identify(t)
	h.exit("systemctl", "stop", "fresh.slice") // that another test has left
	h.withoutSlices()
	h.removes("/fresh.slice")
	h.start()
	h.healthy()
	if !h.pending("fresh.slice") {
		t.Errorf("pending: %q", h.status().Tracking.Pending)
	}
	h.must("mkdir", "-p", lab.CgroupRoot+"/fresh.slice/a.scope")
	t.Cleanup(func() { h.Run(context.Background(), "systemctl", "stop", "fresh.slice") })
	h.converges("made by mkdir")
	maps := h.must("slicelb", "dump", "maps")
	s := h.sample("/fresh.slice")
	h.must("systemctl", "start", "fresh.slice")
	h.eventually(20*time.Second, "it is known as systemd's", func() bool {
		return strings.Contains(h.must("slicelb", "group", "show", "fresh", "-o", "json"), `"unit": "fresh.slice"`)
	})
	h.must("systemctl", "daemon-reload")
	h.settled()
	s.steady()
	h.sameMaps(maps)
	if h.pending("fresh.slice") {
		t.Error("it is pending, and there")
	}
	h.must("rmdir", lab.CgroupRoot+"/fresh.slice/a.scope")
	h.must("systemctl", "stop", "fresh.slice")
	h.eventually(20*time.Second, "pending again", func() bool { return h.pending("fresh.slice") })
}

// systemd says of a unit that it is gone, while a directory of its name lives: that keeps
// its entry. When the directory goes, of which nobody tells systemd, so does that. edge T13
func TestRemovedByWordAlone(t *testing.T) {
	h := identify(t)
	h.start()
	h.healthy()
	dir := lab.CgroupRoot + "/web.slice/left.service"
	h.must("mkdir", "-p", dir)
	t.Cleanup(func() { h.Run(context.Background(), "rmdir", dir) })
	h.converges("made")
	maps := h.must("slicelb", "dump", "maps")
	s := h.sample("/web.slice/left.service")
	for range 10 {
		heard := h.status().Tracking.Sources["signals"]
		h.must("systemctl", "show", "--property=LoadState", "left.service") // loads it, and lets it go
		h.eventually(20*time.Second, "UnitNew and UnitRemoved were heard", func() bool { return h.status().Tracking.Sources["signals"] >= heard+2 })
	}
	h.settled()
	s.steady()
	h.sameMaps(maps)
	entry := "cgroup " + h.must("stat", "--format=%i", dir) + " "
	if !strings.Contains(maps, entry) {
		t.Fatalf("no %q in\n%s", entry, maps)
	}
	h.must("rmdir", dir)
	if now := h.must("slicelb", "dump", "maps"); strings.Contains(now, entry) {
		t.Errorf("%s is mapped, and its directory is gone", entry)
	}
	h.converges("gone without a word of systemd's")
	h.eventually(10*time.Second, "it is known no more", func() bool { return !h.knows("/web.slice/left.service") })
}

// A systemd within a container has a system.slice of its own, which the kernel maps to
// nobody, though it maps the host's. edge T6
func TestNestedSystemd(t *testing.T) {
	h := identify(t)
	h.configure(strings.Replace(identities, `["fresh.slice"]`, `["fresh.slice", "system.slice"]`, 1))
	h.start()
	h.healthy()
	h.removes("/lxc.payload.c1", "/machine.slice", "/user.slice/user-1000.slice")
	for _, s := range []struct{ name, fixed, fresh, who string }{
		{"the host's", "system.slice", "x-%d.service", "127.0.0.1:7002"},
		{"a container's", "lxc.payload.c1", "system.slice/x-%d.service", "127.0.0.1:7005"},
		{"a machine's", "machine.slice/systemd-nspawn@c.service/payload", "system.slice", "127.0.0.1:7005"},
		{"a user's", "user.slice/user-1000.slice/user@1000.service", "fresh.slice/x-%d.scope", "127.0.0.1:7005"},
	} {
		got := h.answered(s.name, h.run("firsts", vip, "30", s.fixed, s.fresh))
		h.right(s.name+" system.slice", got, s.who, 30)
	}
}
