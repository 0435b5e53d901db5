package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/lab/labtest"
)

func TestMain(m *testing.M) {
	// Installed in the lab, this binary is the backends and the clients.
	if len(os.Args) > 1 && (os.Args[1] == "serve" || os.Args[1] == "call") {
		os.Exit(runMain())
	}
	os.Exit(labtest.Main(m))
}

// The demo says nothing that is not so: show fails where the figures are not
// what its text claims. Here it runs to its end.
func TestShow(t *testing.T) {
	labtest.Require(t)
	top := filepath.Join("..", "..")
	binary := filepath.Join(t.TempDir(), "slicelb")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "./cmd/slicelb")
	build.Dir = top
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var out bytes.Buffer
	if err := show(t.Context(), &out, binary, top); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"slicelb: ok: 1 VIP", "rejected (hidden)", "event=rejected group=host vip=web", "20: operation not permitted", "denied (rule)", "http://127.0.0.1:9781/", "balance: one of 1 backend", "calls; 0 failed", "NRestarts=1", "The laboratory is gone",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	for _, line := range shown(t) {
		if !pattern(line).MatchString(out.String()) {
			t.Errorf("the README shows %q, which is not in\n%s", line, out.String())
		}
	}
}

// shown are the lines of the README's piece of what the demo prints.
func shown(t *testing.T) (lines []string) {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "`make demo`")
	_, rest, _ = strings.Cut(rest, "```text\n")
	piece, _, _ := strings.Cut(rest, "```\n")
	for line := range strings.Lines(piece) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) < 10 {
		t.Fatalf("the README shows %q", lines)
	}
	return lines
}

// pattern takes a line as it is, but for counts and the room that they take.
func pattern(line string) *regexp.Regexp {
	line = regexp.QuoteMeta(line)
	line = regexp.MustCompile(` \d+( calls;|\b)`).ReplaceAllString(line, ` \d+$1`)
	line = regexp.MustCompile(` +`).ReplaceAllString(line, ` +`)
	return regexp.MustCompile(`(?m)^ *` + line + `$`)
}

// The configuration that is shown is one.
func TestConf(t *testing.T) {
	if _, err := config.Parse("slicelb.toml", []byte(conf)); err != nil {
		t.Fatal(err)
	}
}
