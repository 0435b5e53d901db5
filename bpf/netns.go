package bpf

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// closeAbroad closes sockets in other network namespaces than the caller's, as
// far as one can get into them: by the processes that are in them.
func (s *sweep) closeAbroad(byNetns map[uint64][]doomedSocket) error {
	failed := make(chan error, 1)
	go awayFromMain(func() { failed <- s.abroad(byNetns) })
	return <-failed
}

// awayFromMain calls f on a thread that ends with it, since f enters other network
// namespaces. Go does not end the process's first thread, which is the one that
// /proc/PID/ns shows: where the goroutine has got that, it keeps it busy while
// another does the work.
func awayFromMain(f func()) {
	runtime.LockOSThread()
	if !onMainThread() {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		awayFromMain(f)
	}()
	<-done
	runtime.UnlockOSThread()
}

// onMainThread is what tests replace to be on it.
var onMainThread = func() bool { return unix.Gettid() == unix.Getpid() }

func (s *sweep) abroad(byNetns map[uint64][]doomedSocket) error {
	var errs, refused []error
	err := eachNetns(func(ns *os.File) bool {
		if err := setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			refused = append(refused[:0], fmt.Errorf("enter another network namespace: %w", err))
			return !errors.Is(err, unix.EPERM) // it will be so for the others
		}
		cookie, err := netnsCookie()
		if err != nil {
			errs = append(errs, err)
			return true
		}
		if list := byNetns[cookie]; list != nil {
			errs = append(errs, s.close(list))
			delete(byNetns, cookie)
		}
		return len(byNetns) > 0
	})
	if len(byNetns) > 0 && len(refused) == 0 && err == nil {
		// With ProtectProc=invisible other users' processes are not even there.
		refused = append(refused, errors.New("look at the network namespaces of processes: those of some sockets are not among them"))
	}
	return errors.Join(append(append(errs, refused...), err)...)
}

// setns is what tests replace to be a process without privileges.
var setns = unix.Setns

// eachNetns calls f for the network namespace of each process, once each, until
// it returns false.
func eachNetns(f func(*os.File) bool) error {
	proc, err := os.Open("/proc")
	if err != nil {
		return err
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return err
	}
	seen := map[uint64]bool{}
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err == nil {
		seen[st.Ino] = true
	}
	var refused error
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		path := "/proc/" + name + "/ns/net"
		if err := unix.Stat(path, &st); err != nil {
			if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
				refused = fmt.Errorf("look at the network namespaces of processes: %w", err)
			}
			continue
		}
		if seen[st.Ino] {
			continue
		}
		ns, err := os.Open(path)
		if err != nil {
			continue // it has ended
		}
		seen[st.Ino] = true
		more := f(ns)
		ns.Close()
		if !more {
			return nil
		}
	}
	return refused
}
