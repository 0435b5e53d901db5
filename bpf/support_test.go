package bpf

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"golang.org/x/sys/unix"
)

// refuseIPv6 is a kernel that has no hooks for it.
func refuseIPv6(next func(hook, *os.File, *ebpf.Program) (link.Link, error)) func(hook, *os.File, *ebpf.Program) (link.Link, error) {
	return func(h hook, dir *os.File, p *ebpf.Program) (link.Link, error) {
		if h.ipv6 {
			return nil, unix.EINVAL
		}
		return next(h, dir, p)
	}
}

// until polls a condition for a minute at most: on a machine that is busy, or emulated.
func until(what string, ok func() bool) error {
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within a minute", what)
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
	return nil
}

func waitSeen(s *kerneltest.Server, data string, n int) error {
	return until(fmt.Sprintf("%s got %q %d times", s.Name, data, n), func() bool { return s.Seen(data) >= n })
}

// heldObjects counts this process's descriptors of maps, programs and links.
func heldObjects(t testing.TB) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// One that is gone is not ours: sockets come and go meanwhile.
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.Contains(target, "bpf") {
			n++
		}
	}
	return n
}

// openDescriptors counts this process's.
func openDescriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
