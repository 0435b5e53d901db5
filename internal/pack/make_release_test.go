package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/internal/checkout"
)

// A release, by make release from a clean clone of a tagged commit: what is in the
// folder then, and that one version is everywhere.
func TestRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("packs everything")
	}
	for _, tool := range []string{"git", "make", "dpkg-deb", "rpm", "sha256sum"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	const version, notes = "1.2.0", "What is new:\n\n- One thing\n  on two lines.\n- Another.\n"
	clone := tagged(t, "v"+version, "# Changelog\n\n## "+version+", 2027-01-31\n\n"+notes+"\n## 1.1.0, 2027-01-01\n\n- Old.\n")
	in(t, clone, "make", "--no-print-directory", "release")

	dist := filepath.Join(clone, "dist")
	packages := []string{"slicelb-1.2.0-1.aarch64.rpm", "slicelb-1.2.0-1.x86_64.rpm", "slicelb_1.2.0-1_amd64.deb", "slicelb_1.2.0-1_arm64.deb"}
	entries, err := os.ReadDir(dist)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff(append([]string{"NOTES.md", "SHA256SUMS"}, packages...), names); diff != "" {
		t.Fatal(diff)
	}
	if got := read(t, dist, "NOTES.md"); got != notes {
		t.Errorf("notes:\n%s", got)
	}
	var summed []string
	for line := range strings.Lines(in(t, dist, "sha256sum", "--check", "--strict", "SHA256SUMS")) {
		name, ok := strings.CutSuffix(strings.TrimSpace(line), ": OK")
		if !ok {
			t.Errorf("sha256sum: %s", line)
		}
		summed = append(summed, name)
	}
	slices.Sort(summed)
	if diff := cmp.Diff(packages, summed); diff != "" {
		t.Errorf("sums: %s", diff)
	}

	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		deb := filepath.Join(dist, "slicelb_1.2.0-1_"+arch+".deb")
		if got := in(t, dist, "dpkg-deb", "--field", deb, "Version", "Architecture"); got != "Version: 1.2.0-1\nArchitecture: "+arch+"\n" {
			t.Errorf("%s:\n%s", deb, got)
		}
		root := t.TempDir()
		in(t, dist, "dpkg-deb", "--extract", deb, root)
		binary := filepath.Join(root, "usr/sbin/slicelb")
		f, err := elf.Open(binary)
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != machine {
			t.Errorf("%s: for %s", deb, f.Machine)
		}
		f.Close()
		if arch == runtime.GOARCH {
			says(t, binary, version)
		}
		changes := gunzip(t, root, "usr/share/doc/slicelb/changelog.Debian.gz")
		if !strings.HasPrefix(changes, "slicelb (1.2.0-1) unstable; urgency=medium\n\n  * One thing on two lines.\n  * Another.\n\n -- ") || !strings.Contains(changes, "\n\nslicelb (1.1.0-1) ") {
			t.Errorf("changelog:\n%s", changes)
		}
		sum := fmt.Sprintf("%x", sha256.Sum256([]byte(read(t, root, "usr/sbin/slicelb"))))
		var bom struct{ Metadata struct{ Component component } }
		if err := json.Unmarshal([]byte(read(t, root, "usr/share/doc/slicelb/slicelb.cdx.json")), &bom); err != nil {
			t.Fatal(err)
		}
		if c := bom.Metadata.Component; c.Version != version || len(c.Hashes) != 1 || c.Hashes[0].Content != sum {
			t.Errorf("the bill of materials is of %+v, and %s is %s", c, binary, sum)
		}
		// The rpm has the same program, and says the same.
		rpm := filepath.Join(dist, "slicelb-1.2.0-1."+map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]+".rpm")
		if got := in(t, dist, "rpm", "--query", "--package", "--queryformat", `%{VERSION}-%{RELEASE}\n`, rpm); got != "1.2.0-1\n" {
			t.Errorf("%s: %s", rpm, got)
		}
		if got := in(t, dist, "rpm", "--query", "--package", "--changelog", rpm); !strings.Contains(got, "- 1.2.0-1\n- One thing on two lines.\n- Another.\n") {
			t.Errorf("changelog:\n%s", got)
		}
		if dump := in(t, dist, "rpm", "--query", "--package", "--dump", rpm); !strings.Contains(dump, sum) {
			t.Errorf("%s has another program than %s:\n%s", rpm, deb, dump)
		}
	}

	// By hand it is the same version, and the clone is as clean as before.
	in(t, clone, "make", "--no-print-directory", "build")
	says(t, filepath.Join(clone, "bin/slicelb"), version)
	if got := in(t, clone, "git", "status", "--porcelain"); got != "" {
		t.Errorf("the clone is not clean any more:\n%s", got)
	}
}

// What is built by hand after a tag has the version that a package of it would have.
func TestOneVersion(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	clone := tagged(t, "v1.2.0", "# Changelog\n\n## Unreleased\n\n- New.\n")
	in(t, clone, "git", "-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "commit", "--quiet", "--allow-empty", "--message=next")
	version := strings.TrimSpace(in(t, clone, "go", "run", "./internal/pack", "-print-version"))
	if !regexp.MustCompile(`^1\.2\.0\+1\.g[0-9a-f]{12}$`).MatchString(version) {
		t.Errorf("the version is %q", version)
	}
	in(t, clone, "make", "--no-print-directory", "build")
	says(t, filepath.Join(clone, "bin/slicelb"), version)
	if got := in(t, clone, "go", "run", "./internal/pack", "-print-version", "-version=v3.0.0"); got != "3.0.0\n" {
		t.Errorf("asked for v3.0.0, it is %q", got)
	}
}

// tagged makes a clean clone of the checkout as it is, with another changelog, at a tag.
func tagged(t *testing.T, tag, changelog string) string {
	t.Helper()
	dir := t.TempDir()
	origin, clone := filepath.Join(dir, "origin"), filepath.Join(dir, "clone")
	if err := checkout.Copy(t.Context(), "../..", origin); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(origin, "CHANGELOG.md"), []byte(changelog), 0o600); err != nil {
		t.Fatal(err)
	}
	in(t, origin, "git", "init", "--quiet")
	in(t, origin, "git", "add", "--all")
	in(t, origin, "git", "-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "commit", "--quiet", "--message=release")
	in(t, origin, "git", "tag", tag)
	in(t, dir, "git", "clone", "--quiet", origin, clone)
	return clone
}

// in runs a command in a folder and returns what it prints.
func in(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	// No version and no time but the commit's.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "SOURCE_DATE_EPOCH=") || strings.HasPrefix(v, "VERSION=") || strings.HasPrefix(v, "MAKE")
	})
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

// says: a program names its version, to people and to programs.
func says(t *testing.T, binary, version string) {
	t.Helper()
	if got, want := in(t, ".", binary, "version"), fmt.Sprintf("slicelb %s (%s)\n", version, runtime.Version()); got != want {
		t.Errorf("%s says %q, want %q", binary, got, want)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(in(t, ".", binary, "version", "-o", "json")), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"version": version, "go": runtime.Version()}, got); diff != "" {
		t.Errorf("version -o json: %s", diff)
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func gunzip(t *testing.T, dir, name string) string {
	t.Helper()
	r, err := gzip.NewReader(strings.NewReader(read(t, dir, name)))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
