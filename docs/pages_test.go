package docs

import (
	"os"
	"regexp"
	"testing"

	"github.com/slicelb/slicelb/config"
)

// Configurations in pages and in man pages.
var (
	tomlBlock = regexp.MustCompile("(?ms)^```toml\n(.*?)^```$")
	manBlock  = regexp.MustCompile(`(?ms)^\.Bd -literal -offset indent\n(\[.*?)^\.Ed$`)
)

// TestExamples: what a page shows as a configuration is one.
func TestExamples(t *testing.T) {
	pages := map[string]*regexp.Regexp{
		"../README.md":                    tomlBlock,
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
