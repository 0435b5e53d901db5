package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/internal/checkout"
	"github.com/slicelb/slicelb/internal/scale"
)

// Packed twice, by different people in different places, the packages are the
// same to the byte; and Debian's and rpm's own checkers have nothing to say but
// what is answered with a reason. At full scale even the compiler's cache is
// not shared.
func TestPackages(t *testing.T) {
	if testing.Short() {
		t.Skip("packs everything twice")
	}
	here, there := t.TempDir(), t.TempDir()
	if err := checkout.Copy(t.Context(), "../..", there); err != nil {
		t.Fatal(err)
	}
	env := []string{"SOURCE_DATE_EPOCH=1700000000", "TZ=UTC"}
	first := run(t, "../..", here, env)
	env = []string{"SOURCE_DATE_EPOCH=1700000000", "TZ=Asia/Tokyo", "LANG=de_DE.UTF-8", "USER=somebody", "GOFLAGS=-tags=other", "GOAMD64=v3"}
	if scale.Factor() >= 1 {
		env = append(env, "GOCACHE="+t.TempDir())
	}
	second := run(t, there, filepath.Join(there, "elsewhere"), env)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
	if len(first) != 4 {
		t.Errorf("%d packages, want 4: %v", len(first), first)
	}
	t.Run("description", func(t *testing.T) { described(t, here) })
	t.Run("lintian", func(t *testing.T) {
		debs, _ := filepath.Glob(filepath.Join(here, "*.deb"))
		check(t, "lintian", append([]string{"--fail-on=error,warning,info", "--display-info", "--tag-display-limit=0"}, debs...)...)
	})
	t.Run("rpmlint", func(t *testing.T) {
		confined(t)
		rpms, _ := filepath.Glob(filepath.Join(here, "*.rpm"))
		check(t, "rpmlint", append([]string{"--strict", "--config=../../packaging/rpm/rpmlint.toml"}, rpms...)...)
	})
}

// confined has what runs cpio, as rpmlint does to unpack a package, get its files where it
// asks for them: their names are absolute in an rpm, and cpio would write them there.
func confined(t *testing.T) {
	t.Helper()
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		return
	}
	dir := t.TempDir()
	script := "#!/bin/sh\nexec " + cpio + " --no-absolute-filenames \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "cpio"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// check runs a checker that fails where it finds something.
func check(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
}

// described: both formats say what it is once, and then more, in paragraphs.
func described(t *testing.T, dir string) {
	for _, tt := range []struct{ pattern, tool, want string }{
		{"*_amd64.deb", "dpkg-deb --field FILE Description", "service addresses for hosts without Kubernetes\n A process"},
		{"*.x86_64.rpm", "rpm --query --package --queryformat %{SUMMARY}\\n%{DESCRIPTION} FILE", "Service addresses for hosts without Kubernetes\nA process"},
	} {
		found, _ := filepath.Glob(filepath.Join(dir, tt.pattern))
		args := strings.Fields(strings.Replace(tt.tool, "FILE", found[0], 1))
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Skipf("%s is not installed", args[0])
		}
		out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).Output()
		if err != nil {
			t.Fatal(err)
		}
		text, blank := string(out), "\n\nFor hosts"
		if args[0] == "dpkg-deb" {
			blank = "\n .\n For hosts"
		}
		if !strings.HasPrefix(text, tt.want) || !strings.Contains(text, blank) || strings.Count(strings.ToLower(text), "without kubernetes") != 1 {
			t.Errorf("%s says\n%s", args[0], text)
		}
	}
}

// run packs and returns the sums of the packages by name.
func run(t *testing.T, top, out string, env []string) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "run", "./internal/pack", "-version=v9.8.7", "-out="+out)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pack: %v\n%s", err, text)
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(out, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sums[e.Name()] = fmt.Sprintf("%x", sha256.Sum256(data))
	}
	return sums
}

// The bill of materials of a program: every module of go.mod that is linked,
// and the licence of each.
func TestBillOfMaterials(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	p := pack{top: top, version: "1.2.3"}
	binary := filepath.Join(t.TempDir(), "slicelb")
	if err := p.build(t.Context(), runtime.GOARCH, binary); err != nil {
		t.Fatal(err)
	}
	text, err := billOfMaterials(binary, p.version, p.time)
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		BOMFormat  string
		Metadata   struct{ Component component }
		Components []component
	}
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatal(err)
	}
	if bom.BOMFormat != "CycloneDX" || bom.Metadata.Component.Version != "1.2.3" {
		t.Errorf("%s", text)
	}
	names := map[string]bool{}
	for _, c := range bom.Components {
		names[c.Name] = true
	}
	licences, err := licenceTexts(t.Context(), top, binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"std", "github.com/cilium/ebpf", "github.com/spf13/cobra", "golang.org/x/sys"} {
		if !names[name] {
			t.Errorf("%s is missing", name)
		}
		if name != "std" && !strings.Contains(string(licences), "\n"+name+" v") {
			t.Errorf("the licence of %s is missing", name)
		}
	}
}
