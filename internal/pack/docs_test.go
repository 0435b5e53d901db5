package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// The pages of a package lead to what is in the package, or to the network.
func TestDocs(t *testing.T) {
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	p := pack{top: top, stage: t.TempDir(), time: time.Unix(1700000000, 0)}
	if err := p.docs(); err != nil {
		t.Fatal(err)
	}
	if err := p.copyTree("packaging/examples", "examples"); err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`)
	pages := 0
	for _, glob := range []string{"docs/*.md", "above/*.md"} {
		found, _ := filepath.Glob(filepath.Join(p.stage, glob))
		for _, path := range found {
			pages++
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range link.FindAllStringSubmatch(string(text), -1) {
				to := m[1]
				if strings.Contains(to, "://") || to == "/etc/slicelb/slicelb.toml" {
					continue
				}
				// Beside docs lie, in a package, the examples and the pages above.
				try := []string{filepath.Join(filepath.Dir(path), to)}
				if up, ok := strings.CutPrefix(to, "../"); ok {
					try = append(try, filepath.Join(p.stage, "above", up))
				} else {
					try = append(try, filepath.Join(p.stage, to))
				}
				ok := false
				for _, target := range try {
					_, err := os.Stat(target)
					ok = ok || err == nil
				}
				if !ok {
					t.Errorf("%s leads to %s, which is in no package", filepath.Base(path), to)
				}
			}
		}
	}
	if pages < 15 {
		t.Errorf("%d pages", pages)
	}
	if left, _ := filepath.Glob(filepath.Join(p.stage, "docs/*.go")); len(left) > 0 {
		t.Errorf("tests among the pages: %q", left)
	}
}
