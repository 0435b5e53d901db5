// Command pack makes slicelb's packages: deb and rpm, from the work tree, with
// packaging/nfpm.yaml as the list of what is in them. The same commit gives the
// same bytes, wherever, whenever and by whomever it is packed: times are those
// of the commit, modes are set here, and nothing of the machine gets in.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var p pack
	flag.StringVar(&p.out, "out", "dist", "`folder` for the packages")
	flag.StringVar(&p.describe, "version", "", "what is packed, as git describe says it (default: ask git)")
	arch := flag.String("arch", "amd64,arm64", "`architectures`")
	format := flag.String("format", "deb,rpm", "`formats`")
	flag.BoolVar(&p.release, "release", false, "refuse what is no release; add checksums and notes")
	printVersion := flag.Bool("print-version", false, "print the packages' version, or nothing without git, and pack nothing")
	flag.Parse()
	p.arches, p.formats = strings.Split(*arch, ","), strings.Split(*format, ",")
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if *printVersion {
		asked := p.describe
		if err := p.identify(ctx); err != nil && asked != "" {
			fmt.Fprintln(os.Stderr, "pack:", err)
			stop()
			os.Exit(1)
		}
		fmt.Println(p.version) // a tree without git has none
		return
	}
	if err := p.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		stop()
		os.Exit(1)
	}
}

// pack is one run.
type pack struct {
	out, describe   string
	arches, formats []string
	release         bool

	version string    // of the packages
	time    time.Time // of everything in them
	top     string    // of the checkout
	stage   string    // what is generated, removed at the end
	modules string    // the modfile of nfpm
	made    []string  // the packages
}

func (p *pack) run(ctx context.Context) (err error) {
	mod, err := output(ctx, "", "go", "env", "GOMOD")
	if err != nil {
		return err
	}
	p.top = filepath.Dir(mod)
	p.modules = filepath.Join(p.top, "internal/pack/nfpm.mod")
	if p.out, err = filepath.Abs(p.out); err != nil {
		return err
	}
	if err := p.identify(ctx); err != nil {
		return err
	}
	notes, err := p.notes()
	if err != nil {
		return err
	}
	if p.stage, err = os.MkdirTemp("", "slicelb-pack-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(p.stage)) }()
	if err := p.prepare(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(p.out, 0o755); err != nil {
		return err
	}
	for _, arch := range p.arches {
		if err := p.compile(ctx, arch); err != nil {
			return err
		}
		for _, format := range p.formats {
			if err := p.make(ctx, arch, format); err != nil {
				return err
			}
		}
	}
	if p.release {
		return p.publish(notes)
	}
	return nil
}

// identify finds out the version and the time: SOURCE_DATE_EPOCH, or when the
// last commit was made.
func (p *pack) identify(ctx context.Context) error {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	var err error
	if epoch == "" {
		if epoch, err = output(ctx, p.top, "git", "log", "-1", "--format=%ct"); err != nil {
			return fmt.Errorf("when was the last commit: %w", err)
		}
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	p.time = time.Unix(seconds, 0).UTC()
	if p.describe == "" {
		if p.describe, err = output(ctx, p.top, "git", "describe", "--tags", "--always", "--dirty", "--abbrev=12"); err != nil {
			return fmt.Errorf("which version is this: %w", err)
		}
	}
	p.version, err = packageVersion(p.describe, p.time)
	return err
}

// prepare stages what is the same for every architecture.
func (p *pack) prepare(ctx context.Context) error {
	native := p.binary(runtime.GOARCH)
	if err := p.build(ctx, runtime.GOARCH, native); err != nil {
		return err
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, err := output(ctx, p.stage, native, "completion", shell)
		if err != nil {
			return err
		}
		if err := p.write("completion."+shell, []byte(script+"\n")); err != nil {
			return err
		}
	}
	if err := p.manual(ctx, native); err != nil {
		return err
	}
	if err := p.copyTree("packaging/examples", "examples"); err != nil {
		return err
	}
	if err := p.docs(); err != nil {
		return err
	}
	entries, err := p.changelog()
	if err != nil {
		return err
	}
	entries = packed(entries, p.version, p.time)
	if err := p.write("changelog.Debian.gz", gzipped(debianChangelog(entries))); err != nil {
		return err
	}
	list, err := rpmChangelog(entries)
	if err != nil {
		return err
	}
	return p.write("changelog.yaml", list)
}

// manual stages the pages that are written by hand, and those of the commands,
// which the program writes itself.
func (p *pack) manual(ctx context.Context, native string) error {
	date := regexp.MustCompile(`(?m)^\.Dd .*$`)
	for _, page := range []string{"slicelb.8", "slicelb.toml.5"} {
		text, err := os.ReadFile(filepath.Join(p.top, "packaging/man", page))
		if err != nil {
			return err
		}
		// As those of the commands have it.
		text = date.ReplaceAll(text, []byte(".Dd "+p.time.Format("January 2, 2006")))
		if err := p.write("man/"+page+".gz", gzipped(text)); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp(p.stage, "pages-")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, native, "man", dir)
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", p.time.Unix()))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("slicelb man: %w\n%s", err, out)
	}
	pages, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join(dir, page.Name()))
		if err != nil {
			return err
		}
		if err := p.write("man/"+page.Name()+".gz", gzipped(text)); err != nil {
			return err
		}
	}
	return nil
}

func (p *pack) changelog() ([]entry, error) {
	text, err := os.ReadFile(filepath.Join(p.top, "CHANGELOG.md"))
	if err != nil {
		return nil, err
	}
	entries, err := parseChangelog(string(text))
	if err != nil {
		return nil, fmt.Errorf("CHANGELOG.md: %w", err)
	}
	return entries, nil
}

// compile stages what belongs to one architecture: the program, what it is
// made of, and under which licences.
func (p *pack) compile(ctx context.Context, arch string) error {
	binary := p.binary(arch)
	if _, err := os.Stat(binary); err != nil {
		if err := p.build(ctx, arch, binary); err != nil {
			return err
		}
	}
	bom, err := billOfMaterials(binary, p.version, p.time)
	if err != nil {
		return err
	}
	if err := p.write("bom."+arch+".json", bom); err != nil {
		return err
	}
	texts, err := licenceTexts(ctx, p.top, binary)
	if err != nil {
		return err
	}
	return p.write("third-party."+arch+".gz", gzipped(texts))
}

func (p *pack) binary(arch string) string { return filepath.Join(p.stage, "slicelb."+arch) }

// build compiles slicelb. The environment's say in how Go compiles ends here.
func (p *pack) build(ctx context.Context, arch, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -buildid= -X main.version="+p.version, "-o", binary, "./cmd/slicelb")
	cmd.Dir = p.top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0", "GOOS=linux", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build for %q: %w\n%s", arch, err, out)
	}
	return os.Chmod(binary, 0o755)
}

// make has nfpm write one package.
func (p *pack) make(ctx context.Context, arch, format string) error {
	text, err := os.ReadFile(filepath.Join(p.top, "packaging/nfpm.yaml"))
	if err != nil {
		return err
	}
	var unknown []string
	values := map[string]string{"ARCH": arch, "VERSION": p.version, "TIME": p.time.Format(time.RFC3339), "STAGE": p.stage, "RPM_PAGES": p.rpmPages(), "SYNOPSIS": "", "CHANGELOG": "changelog: " + filepath.Join(p.stage, "changelog.yaml")}
	if format == "deb" { // an rpm has fields for both
		values["SYNOPSIS"] = "service addresses for hosts without Kubernetes\n  "
		values["CHANGELOG"] = ""
	}
	list := os.Expand(string(text), func(name string) string {
		value, ok := values[name]
		if !ok {
			unknown = append(unknown, name)
		}
		return value
	})
	if len(unknown) > 0 {
		return fmt.Errorf("packaging/nfpm.yaml: no value for $%s", strings.Join(unknown, ", $"))
	}
	if err := p.write("nfpm.yaml", []byte(list)); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile="+p.modules, "nfpm", "package",
		"--config", filepath.Join(p.stage, "nfpm.yaml"), "--packager", format, "--target", p.out)
	cmd.Dir = p.top
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("nfpm, %s for %s: %w\n%s", format, arch, err, out)
	}
	for line := range strings.Lines(string(out)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "created package: "); ok {
			fmt.Println(path)
			p.made = append(p.made, path)
		}
	}
	return nil
}

// rpmPages lists the pages of section 8.
func (p *pack) rpmPages() string {
	found, _ := filepath.Glob(filepath.Join(p.stage, "man/*.8.gz")) // sorted
	var list []string
	for _, path := range found {
		list = append(list, fmt.Sprintf("  - {src: %s, dst: /usr/share/man/man8/%s, type: doc, packager: rpm, file_info: {mode: 0644}}", path, filepath.Base(path)))
	}
	return strings.Join(list, "\n")
}

// output runs a command and returns what it prints, without the last newline.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return "", fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}
