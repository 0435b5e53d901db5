package kernels

import (
	"bytes"
	"compress/gzip"
	"io"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	const console = `SeaBIOS
slicelb-begin bpf
=== RUN   TestKernelA
    a_test.go:1: hello
--- PASS: TestKernelA (0.1s)
=== RUN   TestKernelB
=== RUN   TestKernelB/sub
    --- FAIL: TestKernelB/sub (0.00s)
        b_test.go:2: no
--- FAIL: TestKernelB (0.1s)
=== RUN   TestKernelP
=== RUN   TestKernelP/one
=== RUN   TestKernelP/one/a
    p_test.go:4: not here
=== RUN   TestKernelP/one/b
    p_test.go:5: fine
--- PASS: TestKernelP (0.00s)
    --- PASS: TestKernelP/one (0.00s)
        --- SKIP: TestKernelP/one/a (0.00s)
        --- PASS: TestKernelP/one/b (0.00s)
=== RUN   TestKernelC
    c_test.go:3: needs 6.12
--- SKIP: TestKernelC (0.00s)
FAIL
slicelb-end 1
slicelb-begin empty
testing: warning: no tests to run
slicelb-end 0
slicelb-begin broken
=== RUN   TestKernelD
panic: oh
slicelb-end 2
slicelb-begin exit
=== RUN   TestKernelE
--- PASS: TestKernelE (0.1s)
slicelb-end 1
slicelb-begin cut
=== RUN   TestKernelF
--- PASS: TestKernelF (0.1s)
`
	want := []Result{
		{"bpf", "TestKernelA", "PASS", "    a_test.go:1: hello\n"},
		{"bpf", "TestKernelB", "FAIL", "=== RUN   TestKernelB/sub\n    --- FAIL: TestKernelB/sub (0.00s)\n        b_test.go:2: no\n"},
		{"bpf", "TestKernelP", "PASS", "=== RUN   TestKernelP/one\n=== RUN   TestKernelP/one/a\n    p_test.go:4: not here\n=== RUN   TestKernelP/one/b\n    p_test.go:5: fine\n"},
		{"bpf", "TestKernelP/one/a", "SKIP", "    p_test.go:4: not here\n"},
		{"bpf", "TestKernelC", "SKIP", "    c_test.go:3: needs 6.12\n"},
		{"empty", "", "FAIL", "testing: warning: no tests to run\nexit status 0\n"},
		{"broken", "TestKernelD", "FAIL", "panic: oh\n"},
		{"exit", "TestKernelE", "PASS", ""},
		{"exit", "", "FAIL", "exit status 1\n"},
		{"cut", "TestKernelF", "PASS", ""},
		{"cut", "", "FAIL", "exit status missing\n"},
	}
	if diff := cmp.Diff(want, parse(console)); diff != "" {
		t.Error(diff)
	}
}

func TestSummarize(t *testing.T) {
	got := summarize("6.1.0", []Result{
		{"bpf", "TestKernelA", "PASS", ""},
		{"bpf", "TestKernelFeatures", "PASS", "    features_test.go:61: feature ipv6: yes\n    features_test.go:61: feature new: no\n"},
		{"bpf", "TestKernelC", "SKIP", "    c_test.go:3: needs 6.12\n"},
	})
	want := "Linux 6.1.0: 2 passed, 0 failed, 1 skipped; ipv6: yes, new: no\n  skipped TestKernelC: needs 6.12\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestArchive(t *testing.T) {
	var b bytes.Buffer
	a := newArchive(&b)
	a.dir("d")
	a.dir("d")
	a.file("d/file", 0o644, []byte("12345"))
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(raw, []byte("070701")); n != 3 || len(raw)%4 != 0 || !bytes.Contains(raw, []byte("d/file\x00")) {
		t.Errorf("%d entries in %d bytes: %q", n, len(raw), raw)
	}
}

func TestNumbers(t *testing.T) {
	names := []string{"linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-10-cloud-amd64"}
	if slices.Compare(numbers(names[0]), numbers(names[1])) >= 0 {
		t.Errorf("%v: %v, %v", names, numbers(names[0]), numbers(names[1]))
	}
}
