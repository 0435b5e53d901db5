package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// event is a line of `go test -json`.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

// excuses are skips that are right on every machine: package and test, and why.
var excuses = []struct {
	test   *regexp.Regexp
	reason *regexp.Regexp
}{
	// The matrix is a step of its own, and its guest's test runs in the guest.
	{regexp.MustCompile(`internal/kernels TestMatrix$`), regexp.MustCompile(`SLICELB_KERNELS is not set`)},
	{regexp.MustCompile(`internal/kernels (TestKernelGuest|TestNomadGuest)$`), regexp.MustCompile(`emulated machine only`)},
	// Not in the distribution's packages.
	{regexp.MustCompile(`internal/e2e TestQuadlet$`), regexp.MustCompile(`no Quadlet here`)},
	{regexp.MustCompile(`internal/(e2e|kernels) TestNomad$`), regexp.MustCompile(`SLICELB_TEST_NOMAD names no agent`)},
	// What an old kernel lacks: the matrix fails of any other skip.
	{regexp.MustCompile(`internal/kernels TestMatrix/[0-9.]+/`), regexp.MustCompile(`as testdata/kernels\.list says$`)},
}

var noPackage = regexp.MustCompile(`internal/kernels TestMatrix/[0-9.]+: no such kernel package`)

// gotest runs `go test` and prints its closing line for each package, what
// failed in full, and nothing else. Skipped tests go to the summary.
func (c *checks) gotest(args ...string) error {
	cmd := c.group("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	skipped := report(stdout, os.Stdout)
	for _, s := range skipped {
		what := strings.TrimPrefix(s.pkg, "github.com/slicelb/slicelb/") + " " + s.test
		excused := false
		for _, e := range excuses {
			excused = excused || e.test.MatchString(what) && e.reason.MatchString(s.why)
		}
		// Off the pinned distribution a kernel may have no package.
		if noPackage.MatchString(what+": "+s.why) && !c.distro.pinned() {
			excused = true
		}
		c.skip(what, s.why, excused)
	}
	return cmd.Wait()
}

type skippedTest struct{ pkg, test, why string }

// report turns events into text and returns the tests that were skipped.
func report(events io.Reader, out io.Writer) []skippedTest {
	type key struct{ pkg, test string }
	output := map[key]*strings.Builder{}
	say := func(k key, text string) {
		if output[k] == nil {
			output[k] = &strings.Builder{}
		}
		output[k].WriteString(text)
	}
	take := func(k key) string {
		defer delete(output, k)
		if b := output[k]; b != nil {
			return b.String()
		}
		return ""
	}
	var skipped []skippedTest
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text())
			continue
		}
		k := key{e.Package, e.Test}
		switch e.Action {
		case "build-output":
			io.WriteString(out, e.Output)
		case "output":
			if e.Test == "" && isClosing(e.Output) {
				io.WriteString(out, e.Output)
				continue
			}
			say(k, e.Output)
		case "fail":
			io.WriteString(out, take(k))
		case "pass":
			delete(output, k)
		case "skip":
			if e.Test != "" {
				skipped = append(skipped, skippedTest{e.Package, e.Test, reason(take(k))})
			}
		}
	}
	return skipped
}

// isClosing recognizes the line that go test ends a package with.
func isClosing(line string) bool {
	for _, start := range []string{"ok  \t", "FAIL\t", "?   \t"} {
		if strings.HasPrefix(line, start) {
			return true
		}
	}
	return false
}

var (
	frame  = regexp.MustCompile(`^(=== |--- |\s*--- )`)
	origin = regexp.MustCompile(`^\s*\S+\.go:\d+: `)
)

// reason is what a skipped test said.
func reason(output string) string {
	var said []string
	for line := range strings.Lines(output) {
		line = strings.TrimRight(line, "\n")
		if frame.MatchString(line) {
			continue
		}
		if line = strings.TrimSpace(origin.ReplaceAllString(line, "")); line != "" {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}
