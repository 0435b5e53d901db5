package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The stages that the calling program is run again for. The variable's value
// chooses one; it is removed from the environment at once.
const (
	stageVar     = "SLICELB_LAB_STAGE"
	stageInit    = "init"
	stageJanitor = "janitor"
)

// settings is what Start tells PID 1 before that becomes systemd.
type settings struct {
	Hostname  string
	Systemd   string
	MachineID string
}

// Descriptors of stageInit, after stdio.
const (
	settingsFD = 3
	reportFD   = 4
)

// stage returns a command that runs this program again, up to init below.
func stage(name string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"slicelb-lab-" + name}
	cmd.Env = []string{stageVar + "=" + name}
	cmd.Dir = "/"
	return cmd
}

func init() {
	switch os.Getenv(stageVar) {
	case stageInit:
		os.Unsetenv(stageVar)
		err := becomeSystemd()
		io.WriteString(os.NewFile(reportFD, "report"), err.Error())
		os.Exit(1)
	case stageJanitor:
		os.Unsetenv(stageVar)
		beJanitor()
		syscall.Exit(0) // os.Exit would wait a second for the race detector
	}
}

// becomeSystemd builds the lab's root around the first process of its pid
// namespace and executes systemd there. It returns only an error. It runs in
// an init function, so on the process's first thread: unshare and exec concern
// the same one.
func becomeSystemd() error {
	unix.CloseOnExec(settingsFD)
	unix.CloseOnExec(reportFD)
	var s settings
	// Ends when the parent has put this process where it belongs, or has died.
	if err := json.NewDecoder(os.NewFile(settingsFD, "settings")).Decode(&s); err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	// Now, and not by clone: the root of a new cgroup namespace is the cgroup of
	// the process that asks for it.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare the cgroup namespace: %w", err)
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := buildRoot(s); err != nil {
		return err
	}
	err := unix.Exec(s.Systemd, []string{s.Systemd, "--system", "--unit=multi-user.target"},
		[]string{"container=lab", "PATH=" + commandPath, "LANG=C.UTF-8"})
	return fmt.Errorf("execute %s: %w", s.Systemd, err)
}

// scratch is covered by a tmpfs while the root is built, in the lab's mount
// namespace only. Every system has it.
const scratch = "/tmp"

func buildRoot(s settings) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	host, err := readMounts("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if err := unix.Mount("lab", scratch, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount the lab's memory: %w", err)
	}
	root := filepath.Join(scratch, "root")
	upper, work := filepath.Join(scratch, "upper"), filepath.Join(scratch, "work")
	for _, dir := range []string{root, upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	overlay := "lowerdir=/,upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("lab", root, "overlay", 0, overlay); err != nil {
		return fmt.Errorf("mount an overlay on /: %w", err)
	}
	bindDisks(host, root)
	if err := mountAPI(root); err != nil {
		return err
	}
	if err := makeDev(filepath.Join(root, "dev")); err != nil {
		return fmt.Errorf("make /dev: %w", err)
	}
	if err := prepareEtc(filepath.Join(root, "etc"), s); err != nil {
		return fmt.Errorf("prepare /etc: %w", err)
	}

	// New root and old root at one place: the old one is then on top, and the
	// overlay keeps its own hold on what it needs of it.
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return unix.Chdir("/")
}

// mountAPI mounts the kernel's file systems. Those that are not confined by a
// namespace are read-only, or a service in the lab would set up the host.
func mountAPI(root string) error {
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	mounts := []struct {
		fs, dir, data string
		flags         uintptr
	}{
		{"proc", "/proc", "", safe},
		{"sysfs", "/sys", "", safe | unix.MS_RDONLY},
		{"cgroup2", CgroupRoot, "", safe},
		{"bpf", "/sys/fs/bpf", "mode=0700", safe},
		{"tmpfs", "/run", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/tmp", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/dev", "mode=0755", unix.MS_NOSUID},
	}
	for _, m := range mounts {
		if err := unix.Mount(m.fs, filepath.Join(root, m.dir), m.fs, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.fs, m.dir, err)
		}
	}
	// /proc/sys belongs to everybody but for what hangs below net. The mount of
	// net copies that of sys while it is still writable.
	sys, net := filepath.Join(root, "/proc/sys"), filepath.Join(root, "/proc/sys/net")
	if err := bind(sys, sys); err != nil {
		return err
	}
	if err := bind(net, net); err != nil {
		return err
	}
	return unix.Mount("", sys, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|safe, "")
}

func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", to, err)
	}
	return nil
}

// bindDisks shows the lab the host's other file systems, read-only: an overlay
// sees only the one that its lower directory is on. What fails is missing.
func bindDisks(host []mountPoint, root string) {
	hidden := []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/boot"}
	kernel := []string{"tmpfs", "devtmpfs", "proc", "sysfs", "overlay", "squashfs", "autofs", "fuse.lxcfs"}
	for _, m := range host {
		below := func(dir string) bool { return m.dir == dir || strings.HasPrefix(m.dir, dir+"/") }
		if m.dir == "/" || slices.ContainsFunc(hidden, below) || slices.Contains(kernel, m.fs) {
			continue
		}
		if fi, err := os.Stat(m.dir); err != nil || !fi.IsDir() {
			continue
		}
		to := filepath.Join(root, m.dir)
		if bind(m.dir, to) == nil {
			unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
	}
}

// makeDev makes device nodes that belong to the lab: on the host's, a getty or
// udev in the lab would change owner and mode for everybody.
func makeDev(dev string) error {
	null := unix.Mkdev(1, 3)
	nodes := []struct {
		name string
		dev  uint64
	}{
		{"null", null}, {"zero", unix.Mkdev(1, 5)}, {"full", unix.Mkdev(1, 7)},
		{"random", unix.Mkdev(1, 8)}, {"urandom", unix.Mkdev(1, 9)}, {"tty", unix.Mkdev(5, 0)},
		{"console", null}, // systemd wants to open one
		{"fuse", unix.Mkdev(10, 229)}, {"net/tun", unix.Mkdev(10, 200)},
	}
	for _, dir := range []string{"pts", "shm", "net"} {
		if err := os.Mkdir(filepath.Join(dev, dir), 0o755); err != nil {
			return err
		}
	}
	for _, n := range nodes {
		path := filepath.Join(dev, n.name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(n.dev)); err != nil {
			return fmt.Errorf("mknod %s: %w", n.name, err)
		}
		if err := os.Chmod(path, 0o666); err != nil { // the umask took some
			return err
		}
	}
	links := map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	if err := unix.Mount("devpts", filepath.Join(dev, "pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"); err != nil {
		return fmt.Errorf("mount devpts: %w", err)
	}
	return unix.Mount("tmpfs", filepath.Join(dev, "shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
}

// masked are units that systemd's own packages start everywhere and that have
// nothing to do in a lab, or that would act on the host's kernel.
var masked = []string{
	"getty.target", "getty-static.service", "console-getty.service",
	"systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
	"systemd-udev-trigger.service", "systemd-udev-settle.service", "systemd-hwdb-update.service",
	"systemd-modules-load.service", "systemd-sysctl.service", "systemd-binfmt.service", "modprobe@.service", "kmod-static-nodes.service",
	"proc-sys-fs-binfmt_misc.automount", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount",
	"sys-kernel-debug.mount", "sys-kernel-tracing.mount", "dev-hugepages.mount", "dev-mqueue.mount",
	"systemd-journal-flush.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
	"systemd-random-seed.service", "systemd-machine-id-commit.service", "systemd-firstboot.service",
	"systemd-ask-password-console.path", "systemd-ask-password-wall.path", "systemd-initctl.socket",
	"timers.target", "remote-fs.target", "cryptsetup.target",
}

// prepareEtc makes the lab boot the same whatever the host has enabled: no
// unit of the administrator, no generator, no fstab, no file of slicelb's own.
func prepareEtc(etc string, s settings) error {
	units := filepath.Join(etc, "systemd/system")
	bus, _ := os.Readlink(filepath.Join(units, "dbus.service")) // which of two brokers, on some hosts
	for _, path := range []string{
		"systemd/system", "systemd/system.conf.d", "systemd/system.conf", "systemd/journald.conf", "systemd/journald.conf.d",
		"systemd/system-generators", "fstab", "slicelb",
	} {
		if err := os.RemoveAll(filepath.Join(etc, path)); err != nil {
			return err
		}
	}
	generators := filepath.Join(etc, "systemd/system-generators")
	for _, dir := range []string{units, generators} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"usr/lib/systemd/system-generators", "lib/systemd/system-generators", "usr/local/lib/systemd/system-generators"} {
		entries, err := os.ReadDir(filepath.Join(filepath.Dir(etc), dir))
		if err != nil {
			continue // not on this distribution
		}
		for _, e := range entries {
			if err := os.Symlink("/dev/null", filepath.Join(generators, e.Name())); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
	}
	for _, unit := range masked {
		if err := os.Symlink("/dev/null", filepath.Join(units, unit)); err != nil {
			return err
		}
	}
	if bus != "" {
		if err := os.Symlink(bus, filepath.Join(units, "dbus.service")); err != nil {
			return err
		}
	}
	// A link in place of a file leads out of this tree while it is not yet the root.
	files := map[string]string{"machine-id": s.MachineID + "\n", "hostname": s.Hostname + "\n"}
	for name, data := range files {
		path := filepath.Join(etc, name)
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(path, []byte(data), 0o444); err != nil {
			return err
		}
	}
	return nil
}

// startJanitor starts a process that removes the lab's cgroups once this
// process is gone, whatever it died of. Its standard input ends at that moment.
func (l *Lab) startJanitor(name string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := stage(stageJanitor)
	cmd.Args = append(cmd.Args, l.cg.dir)
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return err
	}
	l.janitor, l.janitorPipe = cmd, w
	return nil
}

func beJanitor() {
	io.Copy(io.Discard, os.Stdin)
	if len(os.Args) == 2 {
		cgroup{dir: os.Args[1]}.remove()
	}
}
