// Package lab boots a throwaway systemd in namespaces of its own, for tests
// and for the demo: a real PID 1 with a system bus, journald and logind, in
// its own mount, pid, cgroup, uts, ipc and network namespace, on a copy of the
// host's root whose changes live in memory.
//
// What the host sees of it is one cgroup directory, below the cgroup2 root or
// in a delegated scope where the host runs systemd, and the processes in it.
// Both go away with [Lab.Stop], with the context given to [Start], and with
// the process that called Start, however that ends: the kernel kills the lab's
// PID 1 when its parent dies, and a small process that outlives the parent
// removes the cgroups. Should that one be killed as well, the next Start
// sweeps what is left.
//
// Start runs the calling program a second time: an init function of this
// package takes over there before main does.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// CgroupRoot is where the lab's cgroup tree is mounted, as seen from inside.
const CgroupRoot = "/sys/fs/cgroup"

// ErrUnsupported says that this machine can hold no lab: the caller is not
// root, or there is no cgroup2 or no systemd on it. The error that wraps it
// names the reason.
var ErrUnsupported = errors.New("lab not possible here")

// bootTimeout bounds the time from clone to a finished boot, about 1 s on an
// idle machine.
const bootTimeout = 60 * time.Second

// systemdPaths is where distributions keep PID 1.
var systemdPaths = []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"}

// Options of a lab. The zero value is usable.
type Options struct {
	// Log takes what a reader of a test's output may want: the time the boot
	// took, leftovers that were swept, units that failed. nil discards it.
	Log func(format string, args ...any)
}

// Lab is a running systemd. Its methods may be called from any goroutine.
type Lab struct {
	log    func(string, ...any)
	cg     cgroup
	init   *exec.Cmd     // PID 1; owned by the goroutine that waits for it
	pid    int           // its process id, seen from outside
	exited chan struct{} // closed once PID 1 is reaped

	janitor     *exec.Cmd
	janitorPipe *os.File

	stopOnce sync.Once
	stopErr  error
	unwatch  func() bool
}

// Supported returns nil if Start can work here, else an error that wraps
// ErrUnsupported and says what is missing.
func Supported() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: not root", ErrUnsupported)
	}
	if _, err := findMount(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if systemdPath() == "" {
		return fmt.Errorf("%w: no systemd is installed", ErrUnsupported)
	}
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		return fmt.Errorf("%w: no dbus-daemon is installed", ErrUnsupported)
	}
	return nil
}

func systemdPath() string {
	for _, p := range systemdPaths {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return ""
}

// Start boots a lab and returns once systemd calls the boot finished. The lab
// is stopped when ctx ends, or by Stop.
func Start(ctx context.Context, o Options) (_ *Lab, err error) {
	if err := Supported(); err != nil {
		return nil, err
	}
	l := &Lab{log: o.Log, exited: make(chan struct{})}
	if l.log == nil {
		l.log = func(string, ...any) {}
	}
	begin := time.Now()

	mount, err := findMount()
	if err != nil {
		return nil, err
	}
	for _, dir := range sweep(mount) {
		l.log("lab: removed %s, left by a process that is gone", dir)
	}

	name := newName()
	if l.cg, err = newCgroup(mount, name); err != nil {
		return nil, fmt.Errorf("lab cgroup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Stop())
		}
	}()

	if err := l.startJanitor(name); err != nil {
		return nil, fmt.Errorf("start the lab's janitor: %w", err)
	}
	if err := l.startInit(ctx, name); err != nil {
		return nil, fmt.Errorf("start the lab's PID 1: %w", err)
	}
	l.unwatch = context.AfterFunc(ctx, func() { l.Stop() })
	if err := l.awaitBoot(ctx); err != nil {
		return nil, fmt.Errorf("boot the lab: %w", err)
	}
	l.log("lab: systemd is up in %s, %.1f s after the start", l.cg.dir, time.Since(begin).Seconds())
	return l, nil
}

// startInit clones the lab's PID 1 and hands it its settings. It returns when
// systemd has been executed, or with what went wrong before that.
func (l *Lab) startInit(ctx context.Context, name string) error {
	inR, inW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer inW.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		inR.Close()
		return err
	}
	defer outR.Close()

	cmd := stage(stageInit)
	cmd.ExtraFiles = []*os.File{inR, outW}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET,
		Setsid:     true, // a terminal's ^C is for the parent
		Pdeathsig:  syscall.SIGKILL,
	}
	if dir, err := l.cg.open(); err != nil {
		inR.Close()
		outW.Close()
		return err
	} else if dir != nil {
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD = true
		cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	}

	started := make(chan error)
	go func() {
		// The death signal follows the thread that cloned, not the process: this
		// one lives until the child is gone.
		runtime.LockOSThread()
		err := cmd.Start()
		inR.Close()
		outW.Close()
		started <- err
		if err == nil {
			cmd.Wait()
			close(l.exited)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	l.init, l.pid = cmd, cmd.Process.Pid

	if err := l.cg.adopt(ctx, l.pid); err != nil {
		return err
	}
	settings, err := json.Marshal(settings{Hostname: "lab", Systemd: systemdPath(), MachineID: randomHex(16)})
	if err != nil {
		return err
	}
	if _, err := inW.Write(settings); err != nil {
		return err
	}
	inW.Close()

	// The other end is closed by exec: nothing to read means that it came to it.
	if msg, err := io.ReadAll(outR); err != nil {
		return err
	} else if len(msg) > 0 {
		return errors.New(string(msg))
	}
	return nil
}

// awaitBoot waits until systemd has finished its start-up jobs.
func (l *Lab) awaitBoot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	// Until its private socket exists there is nobody to ask. Nothing signals
	// that moment to the outside of a pid namespace, so look for it.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(filepath.Join(l.Root(), "run/systemd/private")); err == nil {
			break
		}
		select {
		case <-l.exited:
			return errors.New("systemd ended during its boot")
		case <-ctx.Done():
			return fmt.Errorf("systemd is silent: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
	// The exit code of is-system-running only says whether the state is "running".
	state, _ := l.Run(ctx, "systemctl", "is-system-running", "--wait")
	switch state = strings.TrimSpace(state); state {
	case "running":
		return nil
	case "degraded":
		failed, _ := l.Run(ctx, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
		l.log("lab: units that failed:\n%s", failed)
		return nil
	}
	if ctx.Err() != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		jobs, _ := l.Run(ctx, "systemctl", "list-jobs")
		return fmt.Errorf("not finished: %w; jobs:\n%s", context.Cause(ctx), jobs)
	}
	return fmt.Errorf("systemd is %q", state)
}

// PID is the process id of the lab's PID 1, seen from outside.
func (l *Lab) PID() int { return l.pid }

// Root is the lab's root directory seen from outside, good for reading. An
// absolute symbolic link below it leads out of the lab: write with WriteFile.
func (l *Lab) Root() string { return fmt.Sprintf("/proc/%d/root", l.pid) }

// CgroupDir is the directory of the lab's cgroup root seen from outside; from
// inside it is CgroupRoot.
func (l *Lab) CgroupDir() string { return l.cg.dir }

// Exited is closed when the lab's PID 1 is gone.
func (l *Lab) Exited() <-chan struct{} { return l.exited }

// Stop kills everything in the lab and returns when nothing is left of it. It
// may be called more than once.
func (l *Lab) Stop() error {
	l.stopOnce.Do(func() {
		if l.unwatch != nil {
			l.unwatch()
		}
		if l.init != nil {
			// A pid namespace dies with its first process.
			if err := l.init.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				l.stopErr = fmt.Errorf("kill the lab's PID 1: %w", err)
			}
			<-l.exited
		}
		l.stopErr = errors.Join(l.stopErr, l.cg.remove())
		if l.janitor != nil {
			l.janitorPipe.Close()
			l.janitor.Wait()
		}
	})
	return l.stopErr
}
