package docs

import (
	"os"
	"regexp"
	"testing"

	"github.com/slicelb/slicelb/config"
)

var tomlBlock = regexp.MustCompile("(?ms)^```toml\n(.*?)^```$")

// TestExamples: what a page shows as a configuration is one.
func TestExamples(t *testing.T) {
	for _, page := range []string{"../README.md", "ARCHITECTURE.md", "configuration.md"} {
		text, err := os.ReadFile(page)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range tomlBlock.FindAllSubmatch(text, -1) {
			if _, err := config.Parse(page, m[1]); err != nil {
				t.Errorf("%s: example %d: %v", page, i+1, err)
			}
		}
	}
}
