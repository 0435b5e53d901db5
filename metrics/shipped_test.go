package metrics

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	rulesPath     = "../packaging/examples/prometheus/slicelb.rules.yml"
	ruleTestsPath = "../packaging/examples/prometheus/slicelb.test.yml"
	dashboardPath = "../packaging/examples/grafana/slicelb.json"
)

var (
	nameInQuery  = regexp.MustCompile(`\bslicelb_[a-z_]+`)
	matcherWords = regexp.MustCompile(`\b(slicelb_[a-z_]+)\{([^}]*)\}`)
	matcher      = regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"`)
)

// unknown lists what a text asks for and the registry does not have: metrics, and
// labels of metrics.
func unknown(text string) []string {
	known := map[string]family{}
	for _, f := range families {
		known[f.Name] = f
		if f.Type == histogram {
			known[f.Name+"_bucket"], known[f.Name+"_sum"], known[f.Name+"_count"] = f, f, f
		}
	}
	var out []string
	for _, name := range nameInQuery.FindAllString(text, -1) {
		if _, ok := known[name]; !ok {
			out = append(out, name)
		}
	}
	for _, m := range matcherWords.FindAllStringSubmatch(text, -1) {
		f := known[m[1]]
		for _, label := range matcher.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(append([]string{"instance", "job", "le"}, f.Labels...), label[1]) {
				out = append(out, m[1]+"{"+label[1]+"}")
			}
			if label[1] != "verdict" {
				continue
			}
			for v := range strings.SplitSeq(label[2], "|") {
				if !slices.Contains(verdicts, v) {
					out = append(out, "verdict "+v)
				}
			}
		}
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What the alerts ask for is there, and the page names each alert.
func TestRules(t *testing.T) {
	rules := read(t, rulesPath)
	if got := unknown(rules); len(got) > 0 {
		t.Errorf("the registry does not have %q", got)
	}
	page := read(t, "../docs/observability.md")
	for _, m := range regexp.MustCompile(`(?m)- alert: (\w+)$`).FindAllStringSubmatch(rules, -1) {
		if !strings.Contains(page, "`"+m[1]+"`") {
			t.Errorf("%s is not in docs/observability.md", m[1])
		}
	}
	promtool(t, "", "check", "rules", rulesPath)
	promtool(t, "", "test", "rules", ruleTestsPath)
}

// The dashboard is JSON with queries, of what there is.
func TestDashboard(t *testing.T) {
	var d struct {
		UID    string
		Panels []struct {
			ID      int
			Type    string
			Title   string
			Targets []struct{ Expr string }
			GridPos struct{ X, Y, W, H int }
		}
	}
	text := read(t, dashboardPath)
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	if got := unknown(strings.ReplaceAll(text, `\"`, `"`)); len(got) > 0 {
		t.Errorf("the registry does not have %q", got)
	}
	var queries strings.Builder
	ids := map[int]bool{}
	for i, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d, %q: the id is taken, or there is no title or query", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, q := range d.Panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %q and %q lie over each other", p.Title, q.Title)
			}
		}
		for _, q := range p.Targets {
			queries.WriteString("      - {record: x:y, expr: " + quoteYAML(q.Expr) + "}\n")
		}
	}
	// Prometheus can read each query, with Grafana's words replaced.
	rules := "groups:\n  - name: dashboard\n    rules:\n" + strings.ReplaceAll(queries.String(), "$__rate_interval", "5m")
	for i := range strings.Count(rules, "x:y") {
		rules = strings.Replace(rules, "x:y", "x:y"+strings.Repeat("y", i), 1)
	}
	path := t.TempDir() + "/dashboard.yml"
	if err := os.WriteFile(path, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "rules", path)
}

func quoteYAML(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// A text that asks for something else is noticed.
func TestUnknown(t *testing.T) {
	got := unknown(`slicelb_nope + slicelb_vip_calls_total{unit="x", verdict=~"connects|forgotten"} + slicelb_reconcile_duration_seconds_bucket{le="1"}`)
	if diff := cmp.Diff([]string{"slicelb_nope", "slicelb_vip_calls_total{unit}", "verdict forgotten"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
