package docs

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/config"
)

// A configuration on a man page.
var manBlock = regexp.MustCompile(`(?ms)^\.Bd -literal -offset indent\n(\[.*?)^\.Ed$`)

// TestExamples: what a man page shows as a configuration is one. Those of other
// pages are TestBlocks's.
func TestExamples(t *testing.T) {
	pages := map[string]*regexp.Regexp{
		"../packaging/man/slicelb.toml.5": manBlock,
	}
	for page, block := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Error(err)
			continue
		}
		examples := block.FindAllSubmatch(text, -1)
		if len(examples) == 0 {
			t.Errorf("%s: no example found", page)
		}
		for i, m := range examples {
			if _, err := config.Parse(page, m[1]); err != nil {
				t.Errorf("%s: example %d: %v", page, i+1, err)
			}
		}
	}
}

// TestKeys: slicelb.toml(5) explains every key of the reference, and no other.
func TestKeys(t *testing.T) {
	reference, err := os.ReadFile("../etc/slicelb.toml")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../packaging/man/slicelb.toml.5")
	if err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^#([a-z_]+) = `).FindAllSubmatch(reference, -1) {
		keys[string(m[1])] = true
	}
	for _, m := range regexp.MustCompile(`(?m)^\.It Ic ([a-z_]+)$`).FindAllSubmatch(page, -1) {
		if !keys[string(m[1])] {
			t.Errorf("the page explains %q, which is not in the reference", m[1])
		}
		delete(keys, string(m[1]))
	}
	for k := range keys {
		t.Errorf("%q is not on the page", k)
	}
}

// TestLinks: what a page points to in this repository is there, down to the
// heading.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]*))?\)`)
	for _, glob := range []string{"../*.md", "*.md"} {
		pages, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range link.FindAllSubmatch(text, -1) {
				to, anchor := string(m[1]), string(m[2])
				if strings.Contains(to, "://") {
					continue
				}
				target := page
				if to != "" {
					target = filepath.Join(filepath.Dir(page), to)
				}
				if _, err := os.Stat(target); err != nil {
					t.Errorf("%s: %v", page, err)
					continue
				}
				if anchor == "" || !strings.HasSuffix(target, ".md") {
					continue
				}
				there, err := os.ReadFile(target)
				if err != nil {
					t.Fatal(err)
				}
				if !anchors(string(there))[anchor] {
					t.Errorf("%s: %s has no heading #%s", page, target, anchor)
				}
			}
		}
	}
}

// TestIndex: the manual's first page leads to every other one.
func TestIndex(t *testing.T) {
	index, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob("*.md")
	for _, name := range names {
		if name != "README.md" && !strings.Contains(string(index), "]("+name+")") {
			t.Errorf("docs/README.md does not lead to %s", name)
		}
	}
}

// anchors are the names that a page's headings have in links.
func anchors(text string) map[string]bool {
	all := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all[strings.ReplaceAll(name, " ", "-")] = true
	}
	return all
}

// TestPicture: the picture is XML that shows something and runs nothing.
func TestPicture(t *testing.T) {
	f, err := os.Open("concepts.svg")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	texts := 0
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok {
			switch e.Name.Local {
			case "text":
				texts++
			case "script", "foreignObject", "image":
				t.Errorf("<%s> in a picture", e.Name.Local)
			}
		}
	}
	if texts < 10 {
		t.Errorf("%d texts", texts)
	}
}

// TestSizes: ARCHITECTURE.md's table of sizes is api.h's.
func TestSizes(t *testing.T) {
	header, err := os.ReadFile("../bpf/api.h")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `(SLB_[A-Z_]+)` \\| ([0-9]+) \\|").FindAllSubmatch(page, -1)
	if len(rows) == 0 {
		t.Fatal("no table of sizes found")
	}
	for _, row := range rows {
		m := regexp.MustCompile(`(?m)^#define ` + string(row[1]) + `\s+\(?([0-9]+)(?: \+ ([0-9]+)\))?`).FindSubmatch(header)
		if m == nil {
			t.Errorf("%s is not in api.h", row[1])
			continue
		}
		want := 0
		for _, text := range m[1:] {
			if len(text) == 0 {
				continue
			}
			n, err := strconv.Atoi(string(text))
			if err != nil {
				t.Fatal(err)
			}
			want += n
		}
		if string(row[2]) != strconv.Itoa(want) {
			t.Errorf("%s is %d in api.h, %s on the page", row[1], want, row[2])
		}
	}
}
