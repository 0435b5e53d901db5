package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestKernelsPage: the table of kernels.md is the one that a test in bpf holds
// against each kernel, and the tests that it names are there and run on them.
//
// fault F25
func TestKernelsPage(t *testing.T) {
	page, err := os.ReadFile("kernels.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../bpf/testdata/features.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); !strings.HasPrefix(line, "#") && len(fields) == 4 {
			want[fields[0]] = strings.Join(fields[1:], " ")
		}
	}
	var tests strings.Builder
	for _, glob := range []string{"../bpf/*_test.go", "../lb/*_test.go"} {
		found, _ := filepath.Glob(glob)
		for _, path := range found {
			src, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			tests.Write(src)
		}
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z0-9_/]+)`[^|]* \\| (yes|no) \\| (yes|no) \\| (yes|no) \\| ([^|]+) \\| `(TestKernel[A-Za-z0-9]+)` \\|$")
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		if got := strings.Join(m[2:5], " "); want[m[1]] != got {
			t.Errorf("%s: the page says %q, bpf/testdata/features.txt %q", m[1], got, want[m[1]])
		}
		if !strings.Contains(tests.String(), "\nfunc "+m[6]+"(") {
			t.Errorf("%s: there is no test %s", m[1], m[6])
		}
		delete(want, m[1])
	}
	for feature := range want {
		t.Errorf("%s has no row on the page", feature)
	}
}
