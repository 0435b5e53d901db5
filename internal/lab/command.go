package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const commandPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// execCgroup is where commands run that are given no other place: a cgroup
// that no unit owns.
const execCgroup = "/lab-exec"

// Command returns a command that runs inside the lab: in all its namespaces,
// on its root, and in a cgroup of its tree that no unit owns. Its environment
// is that of a fresh login, not the caller's; append to Env as needed. When
// ctx ends, or the command's process is signalled, the program is killed.
func (l *Lab) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return l.CommandIn(ctx, execCgroup, name, args...)
}

// CommandIn is Command for a given cgroup, a path below the lab's cgroup root
// such as "/web.slice/a.scope". It is made if it does not exist; one that has
// controllers enabled for its children takes no process.
func (l *Lab) CommandIn(ctx context.Context, cgroup, name string, args ...string) *exec.Cmd {
	return l.command(ctx, cgroup, "/dev/null", append([]string{name}, args...))
}

// Self is Command for the calling program itself: a test binary can run one of
// its own tests inside the lab, wherever it was built. File descriptor 3 of
// the new process is its executable.
func (l *Lab) Self(ctx context.Context, args ...string) *exec.Cmd {
	self := fmt.Sprintf("/proc/%d/exe", os.Getpid())
	return l.command(ctx, execCgroup, self, append([]string{"/proc/self/fd/3"}, args...))
}

func (l *Lab) command(ctx context.Context, cgroup, fd3 string, argv []string) *exec.Cmd {
	// The shell goes where the program belongs, while it still sees the host's
	// tree. nsenter then waits outside; the death signal makes its child follow it.
	const script = `mkdir -p "$1" && echo 0 >"$1/cgroup.procs" && exec 3<"$2" && shift 2 && exec "$@"`
	args := []string{"-c", script, "lab", filepath.Join(l.cg.dir, cgroup), fd3,
		"nsenter", "-t", strconv.Itoa(l.pid), "-m", "-p", "-C", "-u", "-i", "-n", "-r", "-w", "--",
		"setpriv", "--pdeathsig", "KILL", "--"}
	cmd := exec.CommandContext(ctx, "/bin/sh", append(args, argv...)...)
	cmd.Env = []string{"PATH=" + commandPath, "HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=dumb", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER="}
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Run runs a command to its end and returns its standard output. The error
// carries the exit status and the standard error.
func (l *Lab) Run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := l.Command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(append([]string{name}, args...), " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// WriteFile writes a file inside the lab, with the directories above it, and
// puts it in place with one rename.
func (l *Lab) WriteFile(path string, data []byte, mode os.FileMode) error {
	return l.write(path, bytes.NewReader(data), mode)
}

// Install copies a file of the host into the lab.
func (l *Lab) Install(from, to string, mode os.FileMode) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return l.write(to, f, mode)
}

func (l *Lab) write(path string, data io.Reader, mode os.FileMode) error {
	// From outside, an absolute link on the way would lead to the host's files.
	const script = `set -e; mkdir -p "$(dirname "$1")"; cat >"$1.new"; chmod "$2" "$1.new"; mv -T "$1.new" "$1"`
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := l.Command(ctx, "sh", "-c", script, "sh", path, fmt.Sprintf("%o", mode.Perm()))
	cmd.Stdin = data
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("write %s in the lab: %w: %s", path, err, bytes.TrimSpace(out))
	}
	return nil
}
