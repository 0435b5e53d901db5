package kernels

import (
	"fmt"
	"regexp"
	"strings"
)

// Summary is the file, beside the kernels, that a run of the matrix leaves for
// people: for each kernel how many tests passed, which were skipped and why,
// and which features it has.
const Summary = "summary.txt"

// Result is what a program printed about one of its tests.
type Result struct {
	Program string
	Test    string // top-level test, or part that was skipped; "" for the program as a whole
	Verdict string // PASS, FAIL or SKIP
	Output  string
}

// place is where a test says something from, in front of what it says.
var place = regexp.MustCompile(`^\s*\S+\.go:\d+: `)

// Reason is what a test said.
func (r Result) Reason() string {
	var said []string
	for line := range strings.Lines(r.Output) {
		said = append(said, strings.Fields(place.ReplaceAllString(line, ""))...)
	}
	return strings.Join(said, " ")
}

var (
	verdict = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+)`)
	// Of a part: verdicts of parts come after that of the whole, messages before.
	partSkipped = regexp.MustCompile(`^\s+--- SKIP: (\S+)`)
	partSpeaks  = regexp.MustCompile(`^=== (?:RUN|CONT|NAME) +(\S+/\S+)`)
)

// parse reads `go test -v` output of several programs from a console. A test
// that began and has no verdict failed, and so did a program whose exit status
// is missing or not 0 while all its tests passed, or that ran no test.
func parse(console string) []Result {
	var results []Result
	var program, running string
	var output strings.Builder
	var part string
	said := map[string]string{} // by parts
	open, failed, count := false, false, 0
	add := func(test, v string) {
		results = append(results, Result{program, test, v, output.String()})
		failed = failed || v == "FAIL"
		output.Reset()
		running = ""
	}
	end := func(status string) {
		if running != "" {
			add(running, "FAIL")
		}
		if (status != "0" || count == 0) && !failed {
			output.WriteString("exit status " + status + "\n")
			add("", "FAIL")
		}
		open = false
	}
	for line := range strings.Lines(console) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, markBegin):
			program, open, failed, count = strings.TrimPrefix(line, markBegin), true, false, 0
			output.Reset()
			clear(said)
		case !open:
		case strings.HasPrefix(line, markEnd):
			end(strings.TrimPrefix(line, markEnd))
		case strings.HasPrefix(line, "=== RUN   ") && !strings.Contains(line, "/"):
			// A verdict's messages come before it: what follows is the next test's.
			running, part = strings.TrimPrefix(line, "=== RUN   "), ""
			output.Reset()
			count++
		case verdict.MatchString(line):
			m := verdict.FindStringSubmatch(line)
			add(m[2], m[1])
		case partSkipped.MatchString(line):
			test := partSkipped.FindStringSubmatch(line)[1]
			results = append(results, Result{program, test, "SKIP", said[test]})
		default:
			if m := partSpeaks.FindStringSubmatch(line); m != nil {
				part = m[1]
			} else if part != "" {
				said[part] += line + "\n"
			}
			output.WriteString(line + "\n")
		}
	}
	if open {
		end("missing")
	}
	return results
}

// feature is what bpf's TestKernelFeatures says of one.
var feature = regexp.MustCompile(`features_test\.go:\d+: feature (\S+: \S+)`)

// summarize tells the results of one kernel.
func summarize(release string, results []Result) string {
	counts := map[string]int{}
	var features, skips []string
	for _, r := range results {
		counts[r.Verdict]++
		for _, m := range feature.FindAllStringSubmatch(r.Output, -1) {
			features = append(features, m[1])
		}
		if r.Verdict == "SKIP" {
			skips = append(skips, fmt.Sprintf("  skipped %s: %s\n", r.Test, r.Reason()))
		}
	}
	return fmt.Sprintf("Linux %s: %d passed, %d failed, %d skipped; %s\n%s",
		release, counts["PASS"], counts["FAIL"], counts["SKIP"], strings.Join(features, ", "), strings.Join(skips, ""))
}
