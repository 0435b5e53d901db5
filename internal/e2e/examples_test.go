package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What Podman 4.4's Quadlet, the oldest, knows in [Container]; a key that it does
// not know makes it refuse the file.
var quadletKeys = strings.Fields(`AddCapability Annotation ContainerName DropCapability Environment EnvironmentFile
	EnvironmentHost Exec ExposeHostPort Group Image Label Network NoNewPrivileges Notify PodmanArgs PublishPort ReadOnly
	RunInit SeccompProfile SecurityLabelDisable SecurityLabelFileType SecurityLabelLevel SecurityLabelType Timezone Tmpfs
	User UserNS VolatileTmp Volume`)

// asQuadlet is the unit that Quadlet makes of a .container, without the container:
// all but [Container] is passed on as it is. TestQuadlet asks the real one, where
// there is one.
func (h *host) asQuadlet(name, text string) string {
	h.t.Helper()
	var unit strings.Builder
	section, image := "", false
	for line := range strings.Lines(text) {
		bare := strings.TrimSpace(line)
		if strings.HasPrefix(bare, "[") {
			section = bare
		}
		if section != "[Container]" {
			unit.WriteString(line)
			if bare == "[Service]" {
				unit.WriteString("ExecStart=/bin/true\n")
			}
			continue
		}
		key, _, ok := strings.Cut(bare, "=")
		image = image || key == "Image"
		if ok && !strings.HasPrefix(bare, "#") && !slices.Contains(quadletKeys, key) {
			h.t.Errorf("%s: [Container] has no key %s", name, key)
		}
	}
	if !image || !strings.Contains(unit.String(), "Slice=") {
		h.t.Errorf("%s: it has no image, or no slice", name)
	}
	return unit.String()
}

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
		case ".service", ".slice", ".container":
			unit := filepath.Base(name)
			if filepath.Ext(name) == ".container" {
				unit = strings.Replace(unit, ".container", ".service", 1)
				text = []byte(h.asQuadlet(name, string(text)))
			}
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
