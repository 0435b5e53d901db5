package config

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what was printed into the golden files")

// plant writes an archive's files below root, "-> target" being a link. What
// begins with "want" stays out.
func plant(t *testing.T, root string, files []txtar.File) {
	t.Helper()
	for _, f := range files {
		if strings.HasPrefix(f.Name, "want") {
			continue
		}
		name := filepath.Join(root, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, link := strings.CutPrefix(string(f.Data), "-> "); link {
			if err := os.Symlink(strings.TrimSpace(to), name); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, 0o644); err != nil { // whatever the umask
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(name, 0o755)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLoad loads each archive of testdata/load as an installed tree and
// compares what a person sees: warnings and errors, then the merged
// configuration with its origins.
func TestLoad(t *testing.T) {
	archives, err := filepath.Glob("testdata/load/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatal("no archives", err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			plant(t, root, ar.Files)
			got := strings.ReplaceAll(loaded(t, Installed(root)), root, "")

			if *update {
				kept := ar.Files[:0]
				for _, f := range ar.Files {
					if f.Name != "want" {
						kept = append(kept, f)
					}
				}
				ar.Files = append(kept, txtar.File{Name: "want", Data: []byte(got)})
				if err := os.WriteFile(name, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			var want string
			for _, f := range ar.Files {
				if f.Name == "want" {
					want = string(f.Data)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// loaded is what a person sees of a source.
func loaded(t *testing.T, s Source) string {
	t.Helper()
	c, warnings, err := s.Load()
	var b bytes.Buffer
	all := []Problem(warnings)
	if err != nil {
		var bad *Error
		if !errors.As(err, &bad) || len(bad.Problems) == 0 {
			t.Fatalf("not an *Error with problems: %v", err)
		}
		if c != nil {
			t.Error("a configuration beside an error")
		}
		all = append(all, bad.Problems...)
	}
	Sort(all)
	for _, p := range all {
		if _, err := p.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
	}
	if c != nil {
		if err := c.Render(&b, true); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}
