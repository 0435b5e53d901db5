package kernels

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// ListFile is a package's list of its tests that run on other kernels: the name
// of a test a line, and indented below it what of it is skipped where, and why:
//
//	TestKernelTerminates
//		6.1 TestKernelTerminates/free/sock_destroy: bpf_sock_destroy (since Linux 6.5)
//
// A test that is renamed so that it does not run there any more, and a skip that
// nobody has thought about, are differences from the list.
const ListFile = "testdata/kernels.list"

// list is what a ListFile says.
type list struct {
	tests []string
	skips []skip
}

type skip struct{ series, test, reason string }

// readList reads the list of the package in dir.
func readList(dir string) (l list, err error) {
	text, err := os.ReadFile(filepath.Join(dir, ListFile))
	if err != nil {
		return l, err
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		rest, indented := strings.CutPrefix(line, "\t")
		switch fields := strings.Fields(line); {
		case line == "" || strings.HasPrefix(line, "#"):
		case indented:
			where, reason, ok := strings.Cut(rest, ": ")
			series, test, ok2 := strings.Cut(where, " ")
			if !ok || !ok2 {
				return l, fmt.Errorf("%s: %q: want KERNEL TEST: REASON", ListFile, line)
			}
			l.skips = append(l.skips, skip{series, test, reason})
		case len(fields) == 1:
			l.tests = append(l.tests, line)
		default:
			return l, fmt.Errorf("%s: %q is no name of a test", ListFile, line)
		}
	}
	return l, nil
}

// testFunc is a test that runs in the machine, as its package has it.
var testFunc = regexp.MustCompile(`(?m)^func (TestKernel[A-Z]\w*)\(t \*testing\.T\)`)

// kernelTests are the names of the tests in dir that run in the machine.
func kernelTests(dir string) (names []string, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, m := range testFunc.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
	}
	return names, nil
}

// CheckList compares the tests of the package in dir with its list.
func CheckList(dir string) error {
	l, err := readList(dir)
	if err != nil {
		return err
	}
	names, err := kernelTests(dir)
	if err != nil {
		return err
	}
	var wrong []string
	for _, name := range l.tests {
		if !slices.Contains(names, name) {
			wrong = append(wrong, name+" is on the list and not there: other kernels do without it")
		}
	}
	for _, name := range names {
		if !slices.Contains(l.tests, name) {
			wrong = append(wrong, name+" is not on the list: add it, so that it is missed when it does not run")
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s: %s", ListFile, strings.Join(wrong, "; "))
	}
	return nil
}

// compare says where the results of a program on a kernel are not what the list
// says: a test that did not run, one that is not listed, a skip that is not, and a
// listed skip that did not happen.
func (l list) compare(series string, results []Result) (wrong []string) {
	skipped := map[string]bool{}
	var ran []string
	for _, r := range results {
		top, _, nested := strings.Cut(r.Test, "/")
		if top != "" && !nested {
			ran = append(ran, top)
		}
		if r.Verdict != "SKIP" {
			continue
		}
		skipped[r.Test] = true
		if !slices.Contains(l.skips, skip{series, r.Test, r.Reason()}) {
			wrong = append(wrong, fmt.Sprintf("%s was skipped, which is not on the list: %s", r.Test, r.Reason()))
		}
	}
	for _, name := range l.tests {
		if !slices.Contains(ran, name) {
			wrong = append(wrong, name+" did not run")
		}
	}
	for _, name := range ran {
		if !slices.Contains(l.tests, name) {
			wrong = append(wrong, name+" is not on the list")
		}
	}
	for _, s := range l.skips {
		if s.series == series && !skipped[s.test] {
			wrong = append(wrong, fmt.Sprintf("%s was not skipped, as the list says: %s", s.test, s.reason))
		}
	}
	return wrong
}
