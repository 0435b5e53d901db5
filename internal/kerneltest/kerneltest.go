// Package kerneltest gives tests on the real kernel what they need of it: a
// cgroup and a network namespace of their own, servers that answer with their
// name, and client processes that make single system calls where they are told
// to. It runs no command, so a test binary works alone in a virtual machine.
//
// A test binary that uses clients has
//
//	func TestMain(m *testing.M) { kerneltest.Main(m) }
package kerneltest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Main runs the tests, or the client side in a process that Start made.
func Main(m *testing.M) {
	BeClient()
	os.Exit(m.Run())
}

// BeClient is the client side, in a process that Start made; elsewhere it does
// nothing. It is for a TestMain that has more to do than Main.
func BeClient() {
	if text := os.Getenv(heirEnv); text != "" {
		if err := beHeir(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(clientEnv) != "" {
		serveClient()
		os.Exit(0)
	}
}

// Root skips a test that is not run as root; under CI=true that is a failure.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("tests on the kernel need root")
	}
	t.Skip("needs root")
}

// Lacks ends a test because err says that the kernel has no such feature. On a
// kernel of at least the version that brought it this is a failure, so that a
// skip cannot hide a regression.
func Lacks(t testing.TB, feature, since string, err error) {
	t.Helper()
	if KernelAtLeast(since) {
		t.Fatalf("%s: %v, on a kernel that should have it (since %s)", feature, err, since)
	}
	t.Skipf("%s: %v (since Linux %s)", feature, err, since)
}

// NeedsUring skips a test where io_uring is switched off; under CI=true that is a
// failure. Every kernel that the tests run on has it.
func NeedsUring(t testing.TB) {
	t.Helper()
	off, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled") // since 6.6
	if err != nil || strings.TrimSpace(string(off)) != "2" {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("kernel.io_uring_disabled is 2")
	}
	t.Skip("kernel.io_uring_disabled is 2")
}

// KernelAtLeast compares the running kernel's version with "6.12".
func KernelAtLeast(version string) bool {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return false
	}
	have, want := numbers(unix.ByteSliceToString(uts.Release[:])), numbers(version)
	for i := range want {
		if i >= len(have) || have[i] != want[i] {
			return i < len(have) && have[i] > want[i]
		}
	}
	return true
}

// numbers reads "6.1.0-13-amd64" as 6, 1, 0.
func numbers(version string) []int {
	var out []int
	for part := range strings.SplitSeq(version, ".") {
		digits := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' })
		if digits < 0 {
			digits = len(part)
		}
		n, err := strconv.Atoi(part[:digits])
		if err != nil {
			break
		}
		out = append(out, n)
		if digits < len(part) {
			break
		}
	}
	return out
}

// until polls for half a minute at most; its error is f's last.
func until(f func() error) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := f()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
}
