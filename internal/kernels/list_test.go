package kernels

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fault F25
func TestListed(t *testing.T) {
	if err := CheckList("."); err != nil {
		t.Error(err)
	}
}

// A renamed test, one that is new, and a list that cannot be read.
func TestCheckList(t *testing.T) {
	const src = "package p\n\nfunc TestKernelA(t *testing.T) {}\n\nfunc TestKernelB(t *testing.T) {}\n"
	tests := []struct{ list, want string }{
		{"# what\nTestKernelA\nTestKernelB\n\t6.1 TestKernelB/x: no: such\n", ""},
		{"TestKernelA\nTestKernelB\nTestKernelC\n", "TestKernelC is on the list and not there"},
		{"TestKernelA\n", "TestKernelB is not on the list"},
		{"TestKernelA\n\t6.1 TestKernelA\n", "want KERNEL TEST: REASON"},
		{"TestKernelA TestKernelB\n", "no name of a test"},
	}
	for _, tt := range tests {
		dir := t.TempDir()
		for name, text := range map[string]string{"a_test.go": src, ListFile: tt.list} {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		switch err := CheckList(dir); {
		case (err == nil) != (tt.want == ""), err != nil && !strings.Contains(err.Error(), tt.want):
			t.Errorf("%q: %v, want %q", tt.list, err, tt.want)
		}
	}
}

// What ran is held against the list: fewer tests, others, and skips that nobody
// expects or that do not come are all told.
func TestCompare(t *testing.T) {
	l := list{
		tests: []string{"TestKernelA", "TestKernelB", "TestKernelC"},
		skips: []skip{{"6.1", "TestKernelB/x", "needs 6.5"}, {"6.1", "TestKernelC", "needs 6.9"}},
	}
	as := func(results ...Result) []Result { return results }
	tests := []struct {
		series  string
		results []Result
		want    []string
	}{
		{"6.1", as(Result{"p", "TestKernelA", "PASS", ""}, Result{"p", "TestKernelB", "PASS", ""},
			Result{"p", "TestKernelB/x", "SKIP", "    b_test.go:3: needs 6.5\n"}, Result{"p", "TestKernelC", "SKIP", "    c_test.go:3: needs 6.9\n"}), nil},
		{"6.12", as(Result{"p", "TestKernelA", "PASS", ""}, Result{"p", "TestKernelB", "PASS", ""}, Result{"p", "TestKernelC", "FAIL", ""}), nil},
		{"6.12", as(Result{"p", "TestKernelA", "PASS", ""}, Result{"p", "TestKernelB", "PASS", ""}, Result{"p", "", "FAIL", "exit status 2\n"}),
			[]string{"TestKernelC did not run"}},
		{"6.12", as(Result{"p", "TestKernelA", "SKIP", "    a_test.go:9: needs root\n"}, Result{"p", "TestKernelB", "PASS", ""}, Result{"p", "TestKernelC", "PASS", ""}),
			[]string{"TestKernelA was skipped, which is not on the list: needs root"}},
		{"6.1", as(Result{"p", "TestKernelA", "PASS", ""}, Result{"p", "TestKernelB", "PASS", ""}, Result{"p", "TestKernelC", "SKIP", "    c_test.go:3: needs root\n"}),
			[]string{"TestKernelC was skipped, which is not on the list: needs root", "TestKernelB/x was not skipped, as the list says: needs 6.5"}},
		{"6.12", as(Result{"p", "TestKernelA", "PASS", ""}, Result{"p", "TestKernelB", "PASS", ""}, Result{"p", "TestKernelC", "PASS", ""}, Result{"p", "TestKernelD", "PASS", ""}),
			[]string{"TestKernelD is not on the list"}},
	}
	for i, tt := range tests {
		if diff := cmp.Diff(tt.want, l.compare(tt.series, tt.results)); diff != "" {
			t.Errorf("%d: %s", i, diff)
		}
	}
}
