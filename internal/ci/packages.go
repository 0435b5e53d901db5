package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// pkg is a package of the distribution that a target needs beyond git, make
// and Go.
type pkg struct {
	name    string
	probe   string // a command or an absolute path: there, so is the package
	why     string
	targets []string
}

var pkgs = []pkg{
	{"gcc", "gcc", "the race detector", []string{"test"}},
	{"libc6-dev", "/usr/include/stdlib.h", "the race detector, BPF headers", []string{"test", "generate"}},
	{"systemd", "/lib/systemd/systemd", "the laboratory", []string{"test", "demo"}},
	{"dbus", "dbus-daemon", "the laboratory", []string{"test", "demo"}},
	{"iproute2", "ip", "networks in tests", []string{"test", "demo"}},
	{"clang-19", "clang-19", "compiles BPF", []string{"test", "generate"}},
	{"llvm-19", "llvm-strip-19", "strips BPF objects", []string{"test", "generate"}},
	{"libbpf-dev", "/usr/include/bpf/bpf_helpers.h", "BPF headers", []string{"test", "generate"}},
	{"qemu-system-x86", "qemu-system-x86_64", "other kernels", []string{"test"}},
	{"busybox-static", "busybox", "other kernels, a small client", []string{"test"}},
	{"xz-utils", "xz", "other kernels' modules", []string{"test"}},
	{"curl", "curl", "a real client", []string{"test"}},
	{"jq", "jq", "examples of the manual", []string{"test"}},
	{"wrk", "wrk", "a real load of HTTP", []string{"test"}},
	{"musl-tools", "musl-gcc", "a real client, with musl's resolver", []string{"test"}},
	{"dnsmasq-base", "dnsmasq", "a real name server", []string{"test"}},
	{"podman", "podman", "a real container", []string{"test"}},
	{"crun", "crun", "a real container", []string{"test"}},
	{"runc", "runc", "a real container, by another runtime", []string{"test"}},
	{"prometheus", "promtool", "checks of the metrics and the alerts", []string{"test"}},
	{"chromium", "chromium", "the status page in a browser", []string{"test"}},
	{"lintian", "lintian", "checks of the deb", []string{"test"}},
	{"rpm", "rpm", "tests of the rpm", []string{"test"}},
	{"rpmlint", "rpmlint", "checks of the rpm", []string{"test"}},
}

func (p pkg) missing() bool {
	if strings.HasPrefix(p.probe, "/") {
		_, err := os.Stat(p.probe)
		return err != nil
	}
	if _, err := exec.LookPath(p.probe); err == nil {
		return false
	}
	_, err := os.Stat("/usr/sbin/" + p.probe) // not in everybody's PATH
	return err != nil
}

// install installs the packages that a target needs and that are not there.
// Where it cannot, it says so: the checks that need one are then skipped.
func (c *checks) install(target string) error {
	var names []string
	for _, p := range pkgs {
		if slices.Contains(p.targets, target) && p.missing() {
			names = append(names, p.name)
			fmt.Printf("    %s is missing (%s)\n", p.name, p.why)
		}
	}
	if len(names) == 0 {
		fmt.Println("    nothing is missing")
		return nil
	}
	list := strings.Join(names, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		c.skip("packages", "no apt-get here; install by hand: "+list, false)
		return nil
	}
	if os.Geteuid() != 0 {
		c.skip("packages", "not root; as root: apt-get install "+list, false)
		return nil
	}
	fmt.Printf("    installing from %s's packages: %s\n", c.distro.Name, list)
	if err := c.apt("update"); err != nil {
		fmt.Printf("    %v\n", err)
	}
	install := []string{"install", "--yes", "--no-install-recommends"}
	if c.apt(append(install, names...)...) == nil {
		return nil
	}
	for _, name := range names { // one that cannot be had should not keep the others away
		if err := c.apt(append(install, name)...); err != nil {
			c.skip("package "+name, err.Error(), false)
		}
	}
	return nil
}

// apt runs apt-get and shows its output only if it fails.
func (c *checks) apt(args ...string) error {
	cmd := exec.CommandContext(c.ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=120"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		return fmt.Errorf("apt-get %s: %w: %s", strings.Join(args, " "), err, lines[len(lines)-1])
	}
	return nil
}

// distro is what /etc/os-release says.
type distro struct{ Name, ID, Version string }

func readDistro() distro {
	d := distro{Name: "unknown system"}
	data, _ := os.ReadFile("/etc/os-release")
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"`)
		switch key {
		case "PRETTY_NAME":
			d.Name = value
		case "ID":
			d.ID = value
		case "VERSION_ID":
			d.Version = value
		}
	}
	return d
}

// pinned tells whether this is the distribution whose compiler and headers the
// committed objects were made with, and whose kernels the matrix is made of.
func (d distro) pinned() bool { return d.ID == "debian" && d.Version == "12" }
