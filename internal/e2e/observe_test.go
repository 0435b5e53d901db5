package e2e

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
)

// hiddenTOML refuses the VIP to everybody but web.
var hiddenTOML = strings.Replace(oldTOML, "clients = [\"web\"]\n", "clients = [\"web\"]\nhidden = \"reject\"\n", 1)

// entries are what the journal has of the fields that match.
func (h *host) entries(match ...string) []map[string]any {
	h.t.Helper()
	h.must("journalctl", "--sync")
	out := h.must("journalctl", append([]string{"--output=json", "--no-pager"}, match...)...)
	var list []map[string]any
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var e map[string]any
		if err := dec.Decode(&e); err != nil {
			h.t.Fatalf("%v\n%s", err, out)
		}
		list = append(list, e)
	}
	return list
}

// What is refused and what is translated is told to who watches, by the names
// that systemd has; refusals and changes of backends and VIPs are in the journal
// with fields of their own. A daemon that is killed while somebody watches
// leaves the clients alone.
func TestObserveAndJournal(t *testing.T) {
	h := install(t)
	h.echo()
	h.configure(hiddenTOML)
	h.start()
	h.healthy()
	began := h.must("date", "+%Y-%m-%d %H:%M:%S")

	watch := h.Command(t.Context(), "slicelb", "observe", "--follow", "--vip", "db", "-o", "jsonl", "-n", "0")
	out, stderr := &watched{grown: make(chan struct{}, 1)}, &bytes.Buffer{}
	watch.Stdout, watch.Stderr = out, stderr
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- watch.Wait() }()
	seen := func(ok func(*api.Decision) bool) func() bool {
		return func() bool {
			h.ask("/web.slice/one.scope")
			h.ask("/other.slice")
			out.mu.Lock()
			defer out.mu.Unlock()
			for line := range strings.Lines(out.text.String()) {
				var o api.Observed
				if json.Unmarshal([]byte(line), &o) == nil && o.Decision != nil && ok(o.Decision) {
					return true
				}
			}
			return false
		}
	}
	h.eventually(20*time.Second, "a translated call is told", seen(func(d *api.Decision) bool {
		return d.Verdict == "translated" && d.Group == "web" && d.VIP == "db" && d.Address == vip && d.Unit == "one.scope" &&
			strings.HasPrefix(d.Backend, "127.0.0.1:700") && d.Cgroup == "/web.slice/one.scope" && d.PID > 0 && d.Command != ""
	}))
	h.eventually(20*time.Second, "a refused call is told", seen(func(d *api.Decision) bool {
		return d.Verdict == "rejected" && d.Reason == "hidden" && d.Group == "host" && strings.HasSuffix(d.Cgroup, "/other.slice")
	}))
	l := h.load(all...)
	h.kill("KILL")
	l.more(200)
	h.healthy()
	l.flawless()
	// Who follows goes on with the next process.
	out.mu.Lock()
	out.text.Reset()
	out.mu.Unlock()
	h.eventually(20*time.Second, "a call is told after a restart", seen(func(d *api.Decision) bool {
		return d.Verdict == "translated" && d.Group == "web"
	}))
	select {
	case err := <-ended:
		t.Errorf("observe ends with the daemon: %v\n%s", err, stderr)
	default:
		watch.Process.Kill()
		<-ended
	}

	h.must("slicelb", "backend", "maint", "db", oldOnes[0])
	h.must("slicelb", "backend", "maint", "db", oldOnes[1])
	if got := h.ask("/web.slice/one.scope"); !strings.Contains(got, "no route to host") {
		t.Errorf("with no backend: %s", got)
	}
	h.must("slicelb", "backend", "ready", "db", oldOnes[0])
	h.configure(badTOML)
	if code, _ := h.exit("slicelb", "reload"); code != 78 {
		t.Errorf("reload of a bad configuration: exit %d", code)
	}
	events := map[string]int{}
	for _, e := range h.entries("--since", began, "SLICELB_VIP=db") {
		name, _ := e["SLICELB_EVENT"].(string)
		events[name]++
		if id, _ := e["MESSAGE_ID"].(string); len(id) != 32 || e["_SYSTEMD_UNIT"] != unit || e["SYSLOG_IDENTIFIER"] != "slicelb" {
			t.Errorf("entry: %v", e)
		}
		if name == "rejected" && (e["SLICELB_GROUP"] != "host" || e["PRIORITY"] != "4") {
			t.Errorf("entry: %v", e)
		}
		if name == "backend-ordered" && !strings.HasPrefix(e["SLICELB_BACKEND"].(string), "127.0.0.1:") {
			t.Errorf("entry: %v", e)
		}
	}
	if events["rejected"] == 0 || events["vip-down"] != 1 || events["vip-up"] != 1 || events["backend-ordered"] != 3 {
		t.Errorf("in the journal of the VIP: %v", events)
	}
	if n := len(h.entries("--since", began, "SLICELB_EVENT=reload-failed")); n != 1 {
		t.Errorf("%d failed reloads in the journal", n)
	}
	if h.must("slicelb", "observe", "--verdict", "rejected", "--no-headers") == "" {
		t.Error("nothing that was refused is kept")
	}
}
