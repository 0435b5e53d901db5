package kernels

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/internal/leftover"
	"github.com/slicelb/slicelb/internal/scale"
)

// matrixVar asks for the matrix: it downloads packages and takes minutes, which
// nobody expects of a bare `go test ./...`. Its value names a folder to keep
// the kernels in.
const matrixVar = "SLICELB_KERNELS"

// guestVar is set in the machine, to the series that was asked for.
const guestVar = "SLICELB_GUEST"

var series = []string{"6.1", "6.12"}

// candidates are the packages whose tests named TestKernel… run in the machine.
var candidates = []string{"internal/kernels", "bpf", "lb"}

// bootTimeout bounds one machine, boot and all tests.
const bootTimeout = 38 * time.Minute

func TestMatrix(t *testing.T) {
	cache := os.Getenv(matrixVar)
	if cache == "" {
		t.Skipf("%s is not set: make test sets it", matrixVar)
	}
	for _, tool := range []string{"qemu-system-x86_64", "busybox", "apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	programs := build(t)
	var summary strings.Builder
	defer func() {
		if err := os.WriteFile(filepath.Join(cache, Summary), []byte(summary.String()), 0o644); err != nil {
			t.Error(err)
		}
	}()
	for _, s := range series {
		t.Run(s, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
			defer cancel()
			k, err := Find(ctx, s, cache)
			if errors.Is(err, ErrUnavailable) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			initramfs := filepath.Join(tempDir(t), "initramfs")
			// Emulation is ten times slower at best, and shows what holds, not how long.
			fraction := strconv.FormatFloat(scale.Factor()/10, 'g', -1, 64)
			env := []string{guestVar + "=" + s, "CI=" + os.Getenv("CI"), scale.Var + "=" + fraction}
			if err := k.Initramfs(ctx, initramfs, env, programs); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			console, err := k.Boot(ctx, initramfs)
			t.Logf("Linux %s: %d test programs in %.0f s, boot included", k.Release, len(programs), time.Since(began).Seconds())
			if err != nil {
				t.Errorf("%v; console:\n%s", err, console)
			}
			results := parse(console)
			summary.WriteString(summarize(k.Release, results))
			for _, p := range programs {
				l, err := readList(p.Dir)
				if err != nil {
					t.Fatal(err)
				}
				of := slices.DeleteFunc(slices.Clone(results), func(r Result) bool { return r.Program != p.Name })
				for _, wrong := range l.compare(s, of) {
					t.Errorf("%s: %s: %s", p.Name, ListFile, wrong)
				}
			}
			for _, r := range results {
				t.Run(r.Program+"/"+r.Test, func(t *testing.T) {
					if strings.TrimSpace(r.Output) != "" {
						t.Log("\n" + r.Output)
					}
					switch r.Verdict {
					case "FAIL":
						t.Fail()
					case "SKIP":
						t.Skip("as " + ListFile + " says") // or it is a failure, above
					}
				})
			}
		})
	}
}

// tempDir is for what is large: where the test is killed, the next one removes it.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := leftover.MkdirTemp("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// build compiles the candidates.
func build(t *testing.T) []Program {
	t.Helper()
	top := filepath.Join("..", "..")
	bin := tempDir(t)
	var programs []Program
	for _, pkg := range candidates {
		dir := filepath.Join(top, pkg)
		path := filepath.Join(bin, strings.ReplaceAll(pkg, "/", "-")+".test")
		cmd := exec.Command("go", "test", "-c", "-o", path, "./"+pkg)
		cmd.Dir = top
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("compile the tests of %s: %v\n%s", pkg, err, out)
		}
		programs = append(programs, Program{Name: pkg, Path: path, Dir: dir,
			Args: []string{"-test.v", "-test.run=^TestKernel", "-test.timeout=35m"}})
	}
	return programs
}

// The machine is what the other packages' tests expect.
func TestKernelGuest(t *testing.T) {
	want := os.Getenv(guestVar)
	if want == "" {
		t.Skip("runs in an emulated machine only")
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if release := unix.ByteSliceToString(u.Release[:]); !strings.HasPrefix(release, want+".") {
		t.Errorf("this is Linux %s, not %s", release, want)
	}
	for path, magic := range map[string]int64{
		"/sys/fs/cgroup": unix.CGROUP2_SUPER_MAGIC, "/sys/fs/bpf": unix.BPF_FS_MAGIC, "/proc": unix.PROC_SUPER_MAGIC,
	} {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err != nil || st.Type != magic {
			t.Errorf("%s: type %#x, %v", path, st.Type, err)
		}
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Error(err)
	}
	mods, _ := os.ReadFile("/proc/modules")
	if !strings.Contains(string(mods), "veth") {
		t.Errorf("no veth among the modules:\n%s", mods)
	}
}
