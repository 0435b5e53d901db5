// Package kernels runs tests on other kernels than the machine's: Debian's
// packages, booted under qemu with nothing but busybox and static test
// binaries. Emulated in software, so that it works in any virtual machine;
// times taken there mean nothing.
package kernels

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Kernel is a kernel taken from a package.
type Kernel struct {
	Release string // as uname -r prints it
	Image   string // path of the vmlinuz
	modules string // directory of its modules
}

// ErrUnavailable says that no package of a kernel can be had on this machine.
var ErrUnavailable = errors.New("no such kernel package")

// Find returns the newest kernel of a series such as "6.1" that the machine's
// distribution has as a package. Packages are unpacked below cache, not
// installed, and what is there already is taken.
func Find(ctx context.Context, series, cache string) (Kernel, error) {
	names, err := packages(ctx, series)
	if err != nil {
		return Kernel{}, err
	}
	if len(names) == 0 { // the lists may be empty, or older than the archive
		if out, err := exec.CommandContext(ctx, "apt-get", "-q", "update").CombinedOutput(); err != nil {
			return Kernel{}, fmt.Errorf("%w: apt-get update: %w: %s", ErrUnavailable, err, lastLine(out))
		}
		if names, err = packages(ctx, series); err != nil {
			return Kernel{}, err
		}
	}
	err = fmt.Errorf("%w: nothing like linux-image-%s.*-cloud-amd64", ErrUnavailable, series)
	for _, name := range names[:min(3, len(names))] {
		dir := filepath.Join(cache, name)
		if k, ok := open(dir); ok {
			return k, nil
		}
		var k Kernel
		if k, err = download(ctx, name, dir); err == nil {
			return k, nil
		}
	}
	if kept, _ := filepath.Glob(filepath.Join(cache, "linux-image-"+series+".*")); len(kept) > 0 {
		if k, ok := open(kept[len(kept)-1]); ok {
			return k, nil
		}
	}
	return Kernel{}, err
}

// packages returns the names of a series' kernel packages, newest first.
func packages(ctx context.Context, series string) ([]string, error) {
	name := regexp.MustCompile(`^linux-image-` + regexp.QuoteMeta(series) + `\.[0-9][^ ]*-cloud-amd64(-unsigned)?$`)
	out, err := exec.CommandContext(ctx, "apt-cache", "--names-only", "search", "^linux-image-"+regexp.QuoteMeta(series)+`\..*cloud-amd64`).Output()
	if err != nil {
		return nil, fmt.Errorf("%w: apt-cache: %w", ErrUnavailable, err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if first, _, _ := strings.Cut(line, " "); name.MatchString(first) {
			names = append(names, first)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return slices.Compare(numbers(b), numbers(a)) })
	return names, nil
}

// numbers returns the numbers in a version, to compare 6.1.0-9 and 6.1.0-10.
func numbers(s string) (ns []int) {
	for _, digits := range regexp.MustCompile(`[0-9]+`).FindAllString(s, -1) {
		n := 0
		fmt.Sscan(digits, &n)
		ns = append(ns, n)
	}
	return ns
}

// download fetches a package and unpacks it in dir.
func download(ctx context.Context, name, dir string) (Kernel, error) {
	if err := os.RemoveAll(dir); err != nil {
		return Kernel{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Kernel{}, err
	}
	get := exec.CommandContext(ctx, "apt-get", "-q", "download", name)
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return Kernel{}, fmt.Errorf("%w: apt-get download %s: %w: %s", ErrUnavailable, name, err, lastLine(out))
	}
	debs, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	if len(debs) != 1 {
		return Kernel{}, fmt.Errorf("%s: %d packages downloaded", name, len(debs))
	}
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", debs[0], dir).CombinedOutput(); err != nil {
		return Kernel{}, fmt.Errorf("unpack %s: %w: %s", name, err, lastLine(out))
	}
	// The package's file goes last: a directory that still has one is incomplete.
	if err := os.Remove(debs[0]); err != nil {
		return Kernel{}, err
	}
	k, ok := open(dir)
	if !ok {
		return Kernel{}, fmt.Errorf("%s holds no kernel", name)
	}
	return k, nil
}

// open returns the kernel that was unpacked in dir.
func open(dir string) (Kernel, bool) {
	debs, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	images, _ := filepath.Glob(filepath.Join(dir, "boot/vmlinuz-*"))
	if len(debs) != 0 || len(images) != 1 {
		return Kernel{}, false
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	k := Kernel{Release: release, Image: images[0], modules: filepath.Join(dir, "lib/modules", release)}
	if _, err := os.Stat(k.modules); err != nil { // Debian 13 and later
		k.modules = filepath.Join(dir, "usr/lib/modules", release)
	}
	return k, true
}

// module returns a module's uncompressed contents.
func (k Kernel) module(ctx context.Context, path string) ([]byte, error) {
	path = filepath.Join(k.modules, "kernel", path)
	if data, err := os.ReadFile(path); err == nil {
		return data, nil
	}
	return exec.CommandContext(ctx, "xz", "-dc", path+".xz").Output()
}

// Program is a static test binary to run in the machine.
type Program struct {
	Name string // names its results
	Path string // on the host
	Dir  string // the package's folder: its testdata goes along
	Args []string
}

// modules that tests need and that Debian's kernels do not have built in.
// In the order in which they are loaded.
var modules = []string{
	"drivers/net/veth.ko", "drivers/net/dummy.ko",
	"net/ipv4/inet_diag.ko", "net/ipv4/tcp_diag.ko", "net/ipv4/udp_diag.ko",
}

// Marks in the machine's console output.
const (
	markBegin = "slicelb-begin "
	markEnd   = "slicelb-end "
	markDone  = "slicelb-done"
)

// Initramfs writes the root file system of a machine that runs the programs
// one after the other and powers off.
func (k Kernel) Initramfs(ctx context.Context, path string, env []string, programs []Program) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	a := newArchive(f)
	for _, dir := range []string{"bin", "dev", "proc", "sys", "tmp", "run", "etc", "root", "lib", "test"} {
		a.dir(dir)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	a.copy("bin/busybox", 0o755, busybox)
	a.file("etc/passwd", 0o644, []byte("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"))
	a.file("etc/hosts", 0o644, []byte("127.0.0.1 localhost\n::1 localhost\n"))

	var init strings.Builder
	init.WriteString(`#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
`)
	for _, m := range modules {
		data, err := k.module(ctx, m)
		if err != nil {
			continue // built in, or none: the test that wants it will say so
		}
		name := "lib/" + filepath.Base(m)
		a.file(name, 0o644, data)
		fmt.Fprintf(&init, "insmod /%s\n", name)
	}
	for _, e := range env {
		fmt.Fprintf(&init, "export %s\n", quote(e))
	}
	for i, p := range programs {
		dir := fmt.Sprintf("test/%d", i)
		a.dir(dir)
		a.copy(dir+"/run.test", 0o755, p.Path)
		if err := a.tree(dir+"/testdata", filepath.Join(p.Dir, "testdata")); err != nil {
			return err
		}
		args := []string{"./run.test"}
		for _, arg := range p.Args {
			args = append(args, quote(arg))
		}
		fmt.Fprintf(&init, "cd /%s\necho %s%s\n%s </dev/null 2>&1\necho %s$?\n", dir, markBegin, p.Name, strings.Join(args, " "), markEnd)
	}
	fmt.Fprintf(&init, "echo %s\npoweroff -f\n", markDone)
	a.file("init", 0o755, []byte(init.String()))
	if err := a.close(); err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	return f.Close()
}

// tree adds a folder with what is below it; one that does not exist adds nothing.
func (a *archive) tree(name, from string) error {
	if _, err := os.Stat(from); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return filepath.Walk(from, func(path string, fi os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch to := filepath.Join(name, rel); {
		case fi.IsDir():
			a.dir(to)
		case fi.Mode().IsRegular():
			a.copy(to, uint32(fi.Mode().Perm()), path)
		}
		return nil
	})
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Boot runs a machine to its end and returns its console. The context bounds
// the time.
func (k Kernel) Boot(ctx context.Context, initramfs string) (string, error) {
	var console bytes.Buffer
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1G",
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-kernel", k.Image, "-initrd", initramfs,
		// no_timer_check: the kernel takes an emulated timer that comes late, on a
		// machine with other work, for a broken one, and panics at boot.
		"-append", "console=ttyS0 quiet loglevel=2 panic=-1 oops=panic no_timer_check")
	cmd.Stdout, cmd.Stderr = &console, &console
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed leaves no machine
	runtime.LockOSThread()                                             // the signal comes with the end of the thread
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	out := strings.ReplaceAll(console.String(), "\r", "")
	if ctx.Err() != nil {
		return out, fmt.Errorf("boot %s: %w", k.Release, context.Cause(ctx))
	}
	if err != nil {
		return out, fmt.Errorf("boot %s: %w", k.Release, err)
	}
	if !strings.Contains(out, markDone) {
		return out, fmt.Errorf("boot %s: the machine ended early", k.Release)
	}
	return out, nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}
