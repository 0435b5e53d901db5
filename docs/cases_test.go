// Package docs holds no code: its tests keep the pages true to the repository.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// An entry of cases.md: "- **D11** [covered] ...".
var entryLine = regexp.MustCompile(`^- \*\*([DTPF][0-9]+)\*\* \[([a-z ]+)\]`)

var marks = []string{"covered", "open", "limit", "not built"}

// A citation in a test: "edge D11", "edges D2, D3 and T4", "fault F12", "threat P8".
// Testscripts and C sources cite too, so the comment's own syntax is not part of it.
var (
	citation = regexp.MustCompile(`\b(?:edge|fault|path|threat)s? ([DTPF][0-9]+(?:(?:, ?| and |, and |/| )[DTPF][0-9]+)*)\b`)
	number   = regexp.MustCompile(`[DTPF][0-9]+`)
)

// TestCases compares the numbers that tests cite with cases.md.
func TestCases(t *testing.T) {
	page, err := os.ReadFile("cases.md")
	if err != nil {
		t.Fatal(err)
	}
	entries, bad := parseEntries(string(page))
	for _, b := range bad {
		t.Errorf("cases.md: %s", b)
	}
	cited, err := citations(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}

	for _, n := range sorted(cited) {
		mark, ok := entries[n]
		switch {
		case !ok:
			t.Errorf("%s is cited but cases.md has no entry for it: %s", n, strings.Join(cited[n], ", "))
		case mark != "covered":
			t.Logf("%s is cited but marked [%s]: %s", n, mark, strings.Join(cited[n], ", "))
		}
	}
	for _, n := range sorted(entries) {
		if entries[n] == "covered" && cited[n] == nil {
			t.Errorf("%s is marked [covered] but no test cites it", n)
		}
	}
}

// parseEntries returns each number's mark, and what is wrong with the page.
func parseEntries(page string) (entries map[string]string, bad []string) {
	entries = make(map[string]string)
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		m := entryLine.FindStringSubmatch(line)
		if m == nil {
			if strings.HasPrefix(line, "- **") && number.MatchString(line[:min(len(line), 8)]) {
				bad = append(bad, "no mark: "+line)
			}
			continue
		}
		if _, twice := entries[m[1]]; twice {
			bad = append(bad, m[1]+" stands here twice")
		}
		if !slices.Contains(marks, m[2]) {
			bad = append(bad, m[1]+" has an unknown mark: "+m[2])
		}
		entries[m[1]] = m[2]
	}
	return entries, bad
}

// citations returns the files that cite each number: Go tests, and whatever lies
// in a testdata folder.
func citations(root fs.FS) (map[string][]string, error) {
	cited := make(map[string][]string)
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != "." && (strings.HasPrefix(d.Name(), ".") || path == "bin" || path == "docs") {
				return fs.SkipDir
			}
			return nil
		}
		inTestdata := slices.Contains(strings.Split(filepath.ToSlash(path), "/"), "testdata")
		if !d.Type().IsRegular() || !inTestdata && !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		for _, m := range citation.FindAllSubmatch(text, -1) {
			for _, n := range number.FindAllString(string(m[1]), -1) {
				if !slices.Contains(cited[n], path) {
					cited[n] = append(cited[n], path)
				}
			}
		}
		return nil
	})
	return cited, err
}

// sorted returns m's keys, D1 before D2 before D10.
func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		switch {
		case a[0] != b[0]:
			return strings.Compare(a[:1], b[:1])
		case len(a) != len(b):
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	return keys
}

func TestParseEntries(t *testing.T) {
	page := "- **D1** [covered] one\n- **D2** [limit] two\n  more\n- **D3** three\n- **D1** [open] again\n- **F4** [perhaps] four\n"
	entries, bad := parseEntries(page)
	if entries["D2"] != "limit" {
		t.Errorf("entries = %v", entries)
	}
	want := []string{"no mark: - **D3** three", "D1 stands here twice", "F4 has an unknown mark: perhaps"}
	if !slices.Equal(bad, want) {
		t.Errorf("bad = %q, want %q", bad, want)
	}
}

func TestCitations(t *testing.T) {
	// Assembled here, or this file would cite them.
	comment := func(word, numbers string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte("// " + word + " " + numbers + ": why\n")}
	}
	cited, err := citations(fstest.MapFS{
		"bpf/udp_test.go":       comment("edge", "D3"),
		"bpf/testdata/v4.txtar": comment("edges", "D1, D2 and T4"),
		"bpf/tcp_test.go":       comment("threat", "P1 P8"),
		"bpf/udp.go":            comment("edge", "D5"), // not a test
		"docs/cases_test.go":    comment("edge", "D6"),
		"lb/fault_test.go":      comment("fault", "F12"),
		".git/a_test.go":        comment("edge", "D7"),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"D1", "D2", "D3", "F12", "P1", "P8", "T4"}
	if got := sorted(cited); !slices.Equal(got, want) {
		t.Errorf("cited = %v, want %v", got, want)
	}
}
