package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/pages"
)

// TestBlocks: every piece of code on every page is run or read by a test, or
// says why not. A console's commands, and files, are for a test in internal/e2e
// that follows the page; a configuration is read here.
func TestBlocks(t *testing.T) {
	followed := followedPages(t)
	var names []string
	for _, glob := range []string{"../*.md", "*.md"} {
		found, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	seen := 0
	for _, name := range names {
		blocks, err := pages.Read(name)
		if err != nil {
			t.Error(err)
		}
		files := "" // of the configuration, so far
		for _, b := range blocks {
			seen++
			path, text, isFile := b.File()
			if b.Lang == "toml" {
				// A file may speak of what stands in those above it.
				if _, err := config.Parse(b.String(), []byte(b.Text)); err != nil {
					if _, together := config.Parse(b.String(), []byte(files+b.Text)); !isFile || together != nil {
						t.Errorf("%s: %v", b, err)
					}
				}
				if isFile {
					files += b.Text + "\n"
				}
			}
			switch {
			case b.NotRun != "":
			case b.Lang == "console":
				if len(b.Commands()) == 0 || !strings.HasPrefix(b.Text, "# ") {
					t.Errorf("%s: a console without a prompt in front", b)
				}
				if !slices.Contains(followed, filepath.Base(name)) {
					t.Errorf("%s: no test follows this page, and nothing says why it is not run", b)
				}
			case isFile:
				if !slices.Contains(followed, filepath.Base(name)) {
					t.Errorf("%s: no test follows this page, and nothing says why %s is not written", b, path)
				}
			case b.Lang == "toml":
			case b.Lang == "text":
				if regexp.MustCompile(`(?m)^[#$] [a-z]`).MatchString(b.Text) {
					t.Errorf("%s: commands that are called text:\n%s", b, b.Text)
				}
			default:
				t.Errorf("%s: a piece of %q that is neither run, nor read, nor marked with a reason:\n%s", b, b.Lang, text)
			}
		}
	}
	if seen < 10 {
		t.Errorf("%d pieces of code found", seen)
	}
}

// TestShown: a file that a page shows, and that is an example in the packages
// too, is the same in both.
func TestShown(t *testing.T) {
	examples := make(map[string]string)
	err := filepath.WalkDir("../packaging/examples", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		first, _, _ := strings.Cut(string(text), "\n")
		examples[first] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	names, _ := filepath.Glob("*.md")
	for _, name := range names {
		blocks, err := pages.Read(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks {
			first, _, _ := strings.Cut(b.Text, "\n")
			if text, ok := examples[first]; ok && strings.HasPrefix(first, "# ") && name != "services.md" {
				shown++
				if text != b.Text {
					t.Errorf("%s: %s is another one in packaging/examples:\n%s", b, first, text)
				}
			}
		}
	}
	if shown < 5 {
		t.Errorf("%d of the examples are shown", shown)
	}
}

// followedPages are the pages that a test of internal/e2e follows.
func followedPages(t *testing.T) (names []string) {
	t.Helper()
	tests, err := filepath.Glob("../internal/e2e/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`\.follow\("\.\./\.\./([^"]+\.md)"`)
	for _, path := range tests {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllStringSubmatch(string(text), -1) {
			names = append(names, filepath.Base(m[1]))
		}
	}
	if len(names) == 0 {
		t.Fatal("no test follows a page")
	}
	return names
}
