package e2e

import (
	"strings"
	"testing"
	"time"
)

// The unit as it is shipped serves the page at the documented port, and where
// systemd can enforce that, nowhere else until a drop-in says so.
func TestPage(t *testing.T) {
	h := install(t)
	h.needs("curl")
	h.echo()
	page := func(port string) string { return "[daemon]\nhttp = \"127.0.0.1:" + port + "\"\n" + oldTOML }
	h.configure(page("9781"))
	at := func(addr string) {
		t.Helper()
		h.eventually(10*time.Second, "the page at "+addr, func() bool { s := h.status(); return s != nil && s.HTTP == addr })
		h.healthy()
	}
	h.start()
	at("127.0.0.1:9781")
	h.ask("/web.slice/one.scope")
	text := h.must("curl", "--silent", "--show-error", "--fail", "http://127.0.0.1:9781/metrics")
	for _, want := range []string{
		`slicelb_group_calls_total{group="web",verdict="connects",vip="db"} `,
		`slicelb_group_anchors{group="web"} 1`, `slicelb_watcher_mode{mode="bus"} 1`,
		"slicelb_store_complete 1", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no line %s in\n%s", want, text)
		}
	}
	if got := h.must("curl", "--silent", "--show-error", "--fail", "http://127.0.0.1:9781/"); !strings.Contains(got, "<title>slicelb") {
		t.Errorf("page: %s", got)
	}

	h.configure(page("9782"))
	h.must("slicelb", "reload")
	const allow = "SocketBindAllow=tcp:9782"
	if !strings.Contains(h.must("systemctl", "--version"), "+BPF_FRAMEWORK") {
		at("127.0.0.1:9782") // this systemd cannot enforce it, and says so in its log
		return
	}
	h.eventually(10*time.Second, "a problem that says what to do", func() bool {
		s := h.status()
		return s != nil && s.HTTP == "" && strings.Contains(strings.Join(s.Problems, "\n"), allow)
	})
	h.dropin("http", "[Service]\n"+allow+"\n")
	h.must("systemctl", "daemon-reload")
	h.must("systemctl", "restart", unit)
	at("127.0.0.1:9782")
	h.must("curl", "--silent", "--show-error", "--fail", "http://127.0.0.1:9782/metrics")
}
