package e2e

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/checkout"
)

// release is a version of the packages, made of a copy of the checkout.
type release struct {
	version string
	change  func(t *testing.T, dir string) // what it has that the checkout has not
}

// Two that differ in what an upgrade replaces: release1 has the scripts of the
// first packages, and release2 another build of every BPF program.
var (
	release1 = release{"1.0.0", oldScripts}
	release2 = release{"1.1.0", otherPrograms}
)

// packed returns the packages of a release for this machine, deb and rpm.
func packed(t *testing.T, r release) (deb, rpm string) {
	t.Helper()
	binary(t, "") // makes the folder
	out := filepath.Join(built.dir, r.version)
	if _, err := os.Stat(out); err != nil {
		dir := t.TempDir()
		if err := checkout.Copy(t.Context(), "../..", dir); err != nil {
			t.Fatal(err)
		}
		r.change(t, dir)
		inDir(t, dir, "go", "run", "./internal/pack", "-version=v"+r.version, "-arch="+runtime.GOARCH, "-out="+out)
	}
	return one(t, out, "*.deb"), one(t, out, "*.rpm")
}

func inDir(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, text)
	}
}

func one(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(dir, pattern))
	if len(found) != 1 {
		t.Fatalf("%s in %s: %v", pattern, dir, found)
	}
	return found[0]
}

// oldScripts puts the first packages' scripts into a checkout.
func oldScripts(t *testing.T, dir string) {
	t.Helper()
	for _, format := range []string{"deb", "rpm"} {
		scripts, err := filepath.Glob(filepath.Join("testdata/first", format, "*"))
		if err != nil || len(scripts) < 3 {
			t.Fatalf("the scripts of the first %s: %q, %v", format, scripts, err)
		}
		for _, script := range scripts {
			text, err := os.ReadFile(script)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "packaging", format, filepath.Base(script)), text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// programStart is where the instructions of a BPF program begin.
var programStart = regexp.MustCompile(`(?m)^int (?:slb_|BPF_PROG\().*\)\n\{\n`)

// otherPrograms gives every program of a checkout one more instruction, and builds
// the object anew.
func otherPrograms(t *testing.T, dir string) {
	t.Helper()
	for _, tool := range []string{"clang-19", "llvm-strip-19"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	source := filepath.Join(dir, "bpf/slicelb.bpf.c")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	changed := programStart.ReplaceAll(text, []byte("$0\tasm volatile(\"r0 = 4711\" ::: \"r0\");\n"))
	if n, want := len(programStart.FindAll(text, -1)), bytes.Count(text, []byte("\nSEC(\"")); n != want {
		t.Fatalf("%d programs begin, and there are %d", n, want)
	}
	if err := os.WriteFile(source, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	inDir(t, dir, "make", "--no-print-directory", "generate-only")
}

// program is what a link runs.
type program struct{ link, tag string }

// hooked is what the links run that systemd keeps, by hook: as the kernel tells of
// the descriptors that the lab's PID 1 has.
func (h *host) hooked() map[string]program {
	h.t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(h.PID()), "fdinfo")
	entries, err := os.ReadDir(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	found := map[string]program{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		about := map[string]string{}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			about[name] = strings.TrimSpace(value)
		}
		if about["link_id"] != "" {
			found[about["attach_type"]+about["tp_name"]] = program{about["link_id"], about["prog_tag"]}
		}
	}
	return found
}

// replaced waits until every hook runs another program than before, by the same
// link where a link can be updated: those of tracepoints cannot.
func (h *host) replaced(before map[string]program) map[string]program {
	h.t.Helper()
	var now map[string]program
	h.eventually(10*time.Second, "the programs of this version run", func() bool {
		now = h.hooked()
		for hook, is := range now {
			if was := before[hook]; was.tag == is.tag {
				return false
			}
		}
		return len(now) > 0
	})
	if a, b := slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(now)); !slices.Equal(a, b) {
		h.t.Fatalf("the hooks were %q and are %q", a, b)
	}
	for hook, is := range now {
		if was := before[hook]; was.link != is.link && !strings.HasPrefix(hook, "cgroup_") {
			h.t.Errorf("hook %s: link %s became %s: nothing was there in between", hook, was.link, is.link)
		}
	}
	return now
}
