package fdstore

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FD is a descriptor under the name that the store has for it.
type FD struct {
	Name string
	FD   int
	Poll bool // the manager may watch it for hang-up; maps must not be
}

// firstListenFD is where the descriptors that are handed over begin.
const firstListenFD = 3

// mostHanded is more than any unit may store.
const mostHanded = 1 << 16

// HandedOver reports whether this process was handed descriptors.
func HandedOver(lookup func(string) (string, bool)) bool {
	pid, _ := lookup("LISTEN_PID")
	n, _ := lookup("LISTEN_FDS")
	return pid == strconv.Itoa(os.Getpid()) && n != "" && n != "0"
}

// Take returns what the manager handed to this process, and hides it from
// children. The caller owns the descriptors. Names that are missing are "".
func Take(lookup func(string) (string, bool), unset func(string) error) ([]FD, error) {
	pid, _ := lookup("LISTEN_PID")
	count, _ := lookup("LISTEN_FDS")
	listed, _ := lookup("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := unset(name); err != nil {
			return nil, fmt.Errorf("unset %s: %w", name, err)
		}
	}
	if pid != strconv.Itoa(os.Getpid()) || count == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > mostHanded {
		return nil, fmt.Errorf("LISTEN_FDS=%q: not a number of descriptors", count)
	}
	names := strings.Split(listed, ":")
	out := make([]FD, n)
	for i := range out {
		fd := firstListenFD + i
		unix.CloseOnExec(fd)
		out[i] = FD{FD: fd}
		if i < len(names) {
			out[i].Name = names[i]
		}
	}
	return out, nil
}

// Close closes descriptors that nobody took.
func Close(fds []FD) error {
	var errs []error
	for _, f := range fds {
		if err := unix.Close(f.FD); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", f.Name, err))
		}
	}
	return errors.Join(errs...)
}
