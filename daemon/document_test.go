package daemon

import (
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/openapi"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// What a daemon answers is what docs/openapi.json says, to the letter.
func TestAnswersFitDocument(t *testing.T) {
	doc, err := openapi.Load("../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, `
[daemon]
http = "`+freePort(t)+`"
[group.web]
slices = ["web.slice"]
[group.jobs]
slices = ["jobs.slice"]
split = "*.scope"
`+oneVIP+`
[vip.db.health]
type = "tcp"
interval = "100ms"
timeout = "100ms"
initial = "up"
[vip.db.for.jobs]
[[vip.db.for.jobs.backend]]
address = "127.0.0.1:1"
[vip.none]
frontends = ["10.96.0.11:80/udp"]
clients = ["web"]
`, newMemoryPath(lbtest.DefaultLimits), nil)
	s := p.await("everything", func(s *api.Status) bool { return s.DataPlane.Attached && s.HTTP != "" })
	socket := filepath.Join(filepath.Dir(p.config), "api.sock")
	asked := map[string]bool{}
	for _, test := range []struct {
		method, path, target string
		status               int
	}{
		{"GET", "/v1/status", "/v1/status", 200},
		{"GET", "/v1/vips/{name}", "/v1/vips/db", 200},
		{"GET", "/v1/vips/{name}", "/v1/vips/none", 200},
		{"GET", "/v1/vips/{name}", "/v1/vips/nope", 404},
		{"GET", "/v1/groups/{name}", "/v1/groups/web", 200},
		{"GET", "/v1/groups/{name}", "/v1/groups/jobs/x.scope", 404},
		{"GET", "/v1/config", "/v1/config", 200},
		{"GET", "/v1/dump", "/v1/dump", 200},
		{"GET", "/v1/explain", "/v1/explain?address=10.96.0.10:80&cgroup=/", 200},
		{"GET", "/v1/explain", "/v1/explain?cgroup=/", 200},
		{"GET", "/v1/explain", "/v1/explain?address=nonsense&cgroup=/", 400},
		{"GET", "/v1/observe", "/v1/observe?last=10", 200},
		{"GET", "/v1/observe", "/v1/observe?last=many", 400},
		{"GET", "/v1/top", "/v1/top", 200},
		{"GET", "/v1/policy", "/v1/policy", 200},
		{"GET", "/metrics", "/metrics", 200},
		{"POST", "/v1/vips/{vip}/backends/{address}/{state}", "/v1/vips/db/backends/192.0.2.1:80/drain", 200},
		{"POST", "/v1/vips/{vip}/backends/{address}/{state}", "/v1/vips/db/backends/192.0.2.1:80/ready", 200},
		{"POST", "/v1/vips/{vip}/backends/{address}/{state}", "/v1/vips/db/backends/192.0.2.9:80/maint", 404},
		{"GET", "/v1/vips/{vip}/backends/{address}/live", "/v1/vips/db/backends/192.0.2.1:80/live", 200},
		{"GET", "/v1/vips/{vip}/backends/{address}/live", "/v1/vips/db/backends/192.0.2.9:80/live", 200},
		{"GET", "/v1/units/{unit}/live", "/v1/units/nope.service/live", 200},
		{"POST", "/v1/units/{unit}/{state}", "/v1/units/nope.service/drain", 404},
		{"POST", "/v1/reload", "/v1/reload?timeout=20s", 200},
		{"POST", "/v1/reload", "/v1/reload?timeout=never", 400},
	} {
		status, body, err := doc.Fetch(t.Context(), socket, test.method, test.path, test.target)
		if err != nil {
			t.Error(err)
		}
		if status != test.status {
			t.Errorf("%s %s: status %d, want %d\n%s", test.method, test.target, status, test.status, body)
		}
		asked[strings.ToLower(test.method)+" "+test.path] = true
	}
	// The page's own.
	resp, err := http.Get("http://" + s.HTTP + "/v1/picture")
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Check("GET", "/v1/picture", resp.StatusCode, resp.Header.Get("Content-Type"), body); err != nil {
		t.Error(err)
	}
	asked["get /v1/picture"] = true
	for path, methods := range doc.Paths {
		for method := range methods {
			if !asked[method+" "+path] {
				t.Errorf("nobody asks %s %s here", method, path)
			}
		}
	}
}
