package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The shipped examples: systemd takes the units, slicelb the configurations.
func TestShippedExamples(t *testing.T) {
	h := install(t)
	const examples = "../../packaging/examples/"
	err := filepath.WalkDir(examples, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, examples)
		switch filepath.Ext(name) {
		case ".toml":
			h.configure(string(text))
			if code, out := h.exit("slicelb", "check"); code != 0 || strings.Contains(out, "warning") {
				t.Errorf("%s: exit %d\n%s", name, code, out)
			}
		case ".service", ".slice":
			unit := filepath.Base(name)
			if err := h.WriteFile("/etc/systemd/system/"+unit, text, 0o644); err != nil {
				t.Fatal(err)
			}
			if code, out := h.exit("systemd-analyze", "verify", "--man=no", strings.Replace(unit, "@.", "@8081.", 1)); code != 0 || strings.Contains(out, unit) {
				t.Errorf("%s: exit %d\n%s", name, code, out)
			}
			h.must("rm", "/etc/systemd/system/"+unit)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
