// Command ci is what the Makefile's targets do beyond one line: it installs
// what a target lacks from the distribution's packages, runs the checks one
// after the other, and says at the end what failed and what was skipped, and
// why. With CI=true a skip that has no excuse is a failure.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/slicelb/slicelb/internal/scale"
)

const usage = `usage: go run ./internal/ci COMMAND
  packages FOR   install what a target (build, demo, generate, lint, test) lacks
  generated      are the generated files those that the sources give?
  lint           gofmt, vet, staticcheck
  kernels        the kernel matrix alone
  test           everything
  soak           the tests alone, with counts in full
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	if err := chdirTop(); err != nil {
		fmt.Fprintln(os.Stderr, "ci:", err)
		return 1
	}
	c := newChecks(ctx)
	switch strings.Join(args, " ") {
	case "lint":
		c.lint()
	case "generated":
		c.step("packages", func() error { return c.install("generate") })
		c.step("generated files", c.generated)
	case "kernels":
		c.step("packages", func() error { return c.install("test") })
		c.step("kernel matrix", c.kernels)
	case "test":
		c.header()
		c.step("packages", func() error { return c.install("test") })
		c.step("generated files", c.generated)
		c.lint()
		c.step("build", func() error { return c.command("make", "--no-print-directory", "build") })
		c.tests("20m")
		c.step("kernel matrix", c.kernels)
	case "soak":
		os.Setenv(scale.Var, "1")
		c.header()
		c.step("packages", func() error { return c.install("test") })
		c.tests("6h")
	default:
		if len(args) == 2 && args[0] == "packages" {
			c.step("packages", func() error { return c.install(args[1]) })
			break
		}
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	return c.finish()
}

// chdirTop goes to the checkout's top, where the Makefile is.
func chdirTop() error {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	return os.Chdir(filepath.Dir(strings.TrimSpace(string(out))))
}

// checks runs steps and remembers what became of them.
type checks struct {
	ctx      context.Context
	ci       bool
	distro   distro
	failures []string
	skips    []skip
	ran      int
}

func newChecks(ctx context.Context) *checks {
	return &checks{ctx: ctx, ci: os.Getenv("CI") == "true", distro: readDistro()}
}

func (c *checks) header() {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	pid1, _ := os.ReadFile("/proc/1/comm")
	goVersion, _ := exec.Command("go", "env", "GOVERSION").Output()
	fmt.Printf("%s, Linux %s, %s, uid %d, PID 1 is %s, %s=%g\n", c.distro.Name, strings.TrimSpace(string(kernel)),
		strings.TrimSpace(string(goVersion)), os.Geteuid(), strings.TrimSpace(string(pid1)), scale.Var, scale.Factor())
}

// step runs one check. The next one runs whatever comes of it.
func (c *checks) step(name string, do func() error) {
	if c.ctx.Err() != nil {
		return
	}
	fmt.Printf("==> %s\n", name)
	c.ran++
	began := time.Now()
	if err := do(); err != nil {
		c.failures = append(c.failures, fmt.Sprintf("%s: %v", name, err))
		fmt.Printf("==> %s failed after %.0f s: %v\n", name, time.Since(began).Seconds(), err)
		return
	}
	if d := time.Since(began); d > 5*time.Second {
		fmt.Printf("    (%s: %.0f s)\n", name, d.Seconds())
	}
}

// skip says that something did not run. Where nothing excuses it, CI fails.
type skip struct {
	what, why string
	excused   bool
}

func (c *checks) skip(what, why string, excused bool) {
	c.skips = append(c.skips, skip{what, why, excused})
}

// group returns a command that, when this program is interrupted, is too, with
// all that it has started: go test passes nothing on to its tests.
func (c *checks) group(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(c.ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// command runs a program with this one's output.
func (c *checks) command(name string, args ...string) error {
	cmd := c.group(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// finish prints the summary and returns the exit code.
func (c *checks) finish() int {
	if c.ctx.Err() != nil {
		fmt.Println("interrupted")
		return 1
	}
	bad := len(c.failures)
	for _, s := range c.skips {
		mark := "skipped"
		if c.ci && !s.excused {
			mark = "SKIPPED, which CI does not allow"
			bad++
		}
		fmt.Printf("%s: %s: %s\n", mark, s.what, s.why)
	}
	for _, f := range c.failures {
		fmt.Println("FAILED:", f)
	}
	if bad > 0 {
		return 1
	}
	if c.ran > 1 {
		fmt.Println("all checks passed")
	}
	return 0
}
