package metrics

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of metrics into docs/observability.md")

// The page's table is made of families.
func TestPage(t *testing.T) {
	const path, begin, end = "../docs/observability.md", "<!-- metrics: go test ./metrics -update -->\n", "<!-- end -->"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(page), begin)
	table, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatal("the page has no place for the table")
	}
	var want strings.Builder
	want.WriteString("\n| Metric | Type | Labels | |\n|---|---|---|---|\n")
	for _, f := range families {
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", f.Name, f.Type, strings.Join(f.Labels, ", "), f.Help)
	}
	want.WriteString("\n")
	if table == want.String() {
		return
	}
	if !*update {
		t.Fatal("the table of metrics is not what the registry has: go test ./metrics -update")
	}
	if err := os.WriteFile(path, []byte(before+begin+want.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
