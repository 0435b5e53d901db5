package docs

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/pages"
)

var written = regexp.MustCompile(`(?s)^cat >(/etc/slicelb/\S+) <<'END'\n(.*)END\n$`)

// TestGuidesTogether: who goes from start.md to the guides and does what each of them
// says has a configuration that is one, all the way: no object is there twice, and what
// the host runs for itself stays in no group.
func TestGuidesTogether(t *testing.T) {
	files := map[string]string{}
	for _, page := range []string{"start.md", "services.md", "podman.md", "docker.md", "lxc.md", "nomad.md"} {
		blocks, err := pages.Read(page)
		if err != nil {
			t.Fatal(err)
		}
		before := len(files)
		for _, b := range blocks {
			if path, text, ok := b.File(); ok && b.Lang == "toml" {
				files[path] = text
			}
			for _, command := range b.Commands() {
				if m := written.FindStringSubmatch(command); m != nil {
					files[m[1]] = m[2]
				}
			}
		}
		if page == "start.md" && len(files) == before {
			t.Fatalf("%s: no configuration", page)
		}
		var all strings.Builder
		for _, path := range slices.Sorted(maps.Keys(files)) {
			all.WriteString(files[path] + "\n")
		}
		cfg, err := config.Parse("all", []byte(all.String()))
		if err != nil {
			t.Errorf("after %s, with %q: %v", page, slices.Sorted(maps.Keys(files)), err)
			continue
		}
		tree, err := cfg.Tree()
		if err != nil {
			t.Fatal(err)
		}
		if group, _ := tree.Of("/system.slice/ssh.service"); group != "" {
			t.Errorf("after %s the host's services are in the group %s", page, group)
		}
	}
}
