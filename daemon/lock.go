package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockName stands beside the socket. The unit keeps the folder over restarts,
// so that a unit that fails because a daemon was started by hand does not take
// that daemon's lock away.
const lockName = "lock"

// ErrRunning means that another process is the daemon here.
var ErrRunning = errors.New("another daemon runs")

// takeLock makes this process the only daemon that uses dir, or fails at once.
// The lock ends with the process; the returned file must stay open.
func takeLock(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("%w: it holds %s", ErrRunning, path)
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if holds(f, path) {
			return f, nil
		}
		f.Close() // somebody replaced the file between open and lock
	}
}

// holds reports whether f is still the file that path names.
func holds(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(open, named)
}

// lockRoot makes this process the only daemon of the cgroup tree whose open
// directory dir is, wherever the socket is. False: another process has the lock.
// Anybody may lock a directory that he can read, so a daemon that the service
// manager started serves all the same, and says so; who starts one by hand is told.
func lockRoot(dir *os.File) (bool, error) {
	err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	return true, nil
}
