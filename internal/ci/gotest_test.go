package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	const events = `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: wanted 1\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- PASS: TestB\n"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestC","Output":"=== RUN   TestC\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:5: not root\n"}
{"Action":"output","Package":"p","Test":"TestC","Output":"--- SKIP: TestC (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
{"ImportPath":"q","Action":"build-output","Output":"q.go:1: no\n"}
{"Action":"output","Package":"r","Output":"ok  \tr\t0.2s\n"}
{"Action":"pass","Package":"r"}
`
	var out strings.Builder
	skipped := report(strings.NewReader(events), &out)
	const want = "=== RUN   TestA\n    a_test.go:3: wanted 1\nFAIL\tp\t0.1s\nFAIL\nq.go:1: no\nok  \tr\t0.2s\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	if len(skipped) != 1 || skipped[0] != (skippedTest{"p", "TestC", "not root"}) {
		t.Errorf("skipped: %v", skipped)
	}
}

// With CI=true a skip is a failure, unless it is excused.
func TestFinish(t *testing.T) {
	tests := []struct {
		name    string
		ci      bool
		failure string
		skips   []skip
		want    int
	}{
		{name: "all well", ci: true},
		{name: "failure", failure: "x", want: 1},
		{name: "skip at home", skips: []skip{{"a", "b", false}}},
		{name: "skip in CI", ci: true, skips: []skip{{"a", "b", false}}, want: 1},
		{name: "excused in CI", ci: true, skips: []skip{{"a", "b", true}}},
	}
	for _, tt := range tests {
		c := &checks{ctx: t.Context(), ci: tt.ci, skips: tt.skips}
		if tt.failure != "" {
			c.failures = []string{tt.failure}
		}
		if got := c.finish(); got != tt.want {
			t.Errorf("%s: exit %d, want %d", tt.name, got, tt.want)
		}
	}
}
