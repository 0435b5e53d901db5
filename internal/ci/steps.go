package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slicelb/slicelb/internal/kernels"
)

// cacheDir keeps what is dear to download. .gitignore names it.
const cacheDir = ".cache"

// generated regenerates the BPF objects and compares them with those that are
// committed. The work tree is left as it was.
func (c *checks) generated() error {
	for _, tool := range []string{"clang-19", "llvm-strip-19"} {
		if _, err := exec.LookPath(tool); err != nil {
			c.skip("generated files", tool+" is not installed", false)
			return nil
		}
	}
	committed, err := readGenerated()
	if err != nil {
		return err
	}
	if len(committed) == 0 {
		return errors.New("no generated files in bpf/")
	}
	defer func() {
		for path, data := range committed {
			os.WriteFile(path, data, 0o644)
		}
	}()
	if err := c.command("make", "--no-print-directory", "generate-only"); err != nil {
		return err
	}
	fresh, err := readGenerated()
	if err != nil {
		return err
	}
	var differ []string
	for path := range maps.Keys(fresh) {
		if !bytes.Equal(fresh[path], committed[path]) {
			differ = append(differ, path)
		}
		if _, ok := committed[path]; !ok {
			os.Remove(path)
		}
	}
	slices.Sort(differ)
	switch list := strings.Join(differ, ", "); {
	case list == "":
		return nil
	case !c.distro.pinned():
		// Line numbers in libbpf's headers get into the objects.
		c.skip("generated files", "made with the compiler and headers of Debian 12; here these come out different: "+list, true)
		return nil
	default:
		return fmt.Errorf("not what the sources give: %s; run make generate", list)
	}
}

func readGenerated() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, pattern := range []string{"bpf/*_bpfel.go", "bpf/*_bpfel.o", "bpf/*_bpfeb.go", "bpf/*_bpfeb.o"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			files[path] = data
		}
	}
	return files, nil
}

func (c *checks) lint() {
	c.step("gofmt", func() error {
		out, err := exec.CommandContext(c.ctx, "git", "ls-files", "*.go").Output()
		if err != nil {
			return fmt.Errorf("list the Go files: %w", err)
		}
		out, err = exec.CommandContext(c.ctx, "gofmt", append([]string{"-l"}, strings.Fields(string(out))...)...).CombinedOutput()
		if err != nil || len(out) > 0 {
			return fmt.Errorf("not formatted, or not Go: %s", strings.Join(strings.Fields(string(out)), " "))
		}
		return nil
	})
	c.step("go vet", func() error { return c.command("go", "vet", "./...") })
	c.step("staticcheck", func() error {
		// A modfile of its own: the tool's dependencies are none of slicelb's.
		return c.command("go", "tool", "-modfile=internal/ci/tools.mod", "staticcheck", "./...")
	})
}

// tests runs the Go tests. Those that boot machines, attach programs and load
// the host follow each other; the others share it. No result is taken from Go's
// cache: many build the program and run it, of which the cache knows nothing.
func (c *checks) tests(timeout string) {
	const format = `{{.ImportPath}}{{range .TestImports}} {{.}}{{end}}{{range .XTestImports}} {{.}}{{end}}`
	list := exec.CommandContext(c.ctx, "go", "list", "-f", format, "./...")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		c.step("tests", func() error { return fmt.Errorf("go list: %w", err) })
		return
	}
	var light, heavy []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if strings.HasSuffix(fields[0], "/bpf") || slices.ContainsFunc(fields[1:], func(imported string) bool {
			return strings.HasSuffix(imported, "/internal/lab/labtest") || strings.HasSuffix(imported, "/internal/kerneltest")
		}) {
			heavy = append(heavy, fields[0])
		} else {
			light = append(light, fields[0])
		}
	}
	c.step("tests", func() error {
		return c.gotest(append([]string{"-race", "-count=1", "-timeout=" + timeout}, light...)...)
	})
	c.step("tests on the kernel and on systemd", func() error {
		if os.Geteuid() != 0 {
			c.skip("tests on the kernel and on systemd", "most need root", false)
		}
		return c.gotest(append([]string{"-race", "-count=1", "-p=1", "-timeout=" + timeout}, heavy...)...)
	})
}

func (c *checks) kernels() error {
	cache, err := filepath.Abs(filepath.Join(cacheDir, "kernels"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	os.Setenv("SLICELB_KERNELS", cache)
	defer os.Unsetenv("SLICELB_KERNELS")
	err = c.gotest("-run=^TestMatrix$", "-count=1", "-timeout=80m", "./internal/kernels")
	if summary, missing := os.ReadFile(filepath.Join(cache, kernels.Summary)); missing == nil {
		fmt.Print(string(summary))
	}
	return err
}
