package bpf

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// featureProbes ask the kernel for what the data plane can do without.
var featureProbes = map[string]func(*testing.T) bool{
	"ipv6": func(t *testing.T) bool {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err == nil
	},
	"bpf_sock_destroy": func(t *testing.T) bool {
		kernel, err := btf.LoadKernelSpec()
		if err != nil {
			t.Fatal(err)
		}
		var f *btf.Func
		err = kernel.TypeByName("bpf_sock_destroy", &f)
		if err != nil && !errors.Is(err, btf.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	},
	"sock_diag_destroy": func(t *testing.T) bool {
		// Of a socket that is not there.
		nowhere := netip.MustParseAddrPort("127.0.0.1:1")
		err := diagDestroy([]doomedSocket{{family: unix.AF_INET, proto: unix.IPPROTO_TCP, local: nowhere, remote: nowhere, cookie: 1}})
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EOPNOTSUPP) {
			t.Fatal(err)
		}
		return !errors.Is(err, unix.EOPNOTSUPP)
	},
}

// Every kernel has what testdata/features.txt, and so docs/kernels.md, says
// that it has, and lacks what it is said to lack.
//
// fault F25
func TestKernelFeatures(t *testing.T) {
	text, err := os.ReadFile("testdata/features.txt")
	if err != nil {
		t.Fatal(err)
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	column := 3 // newer than those that are named
	for i, series := range []string{"6.1.", "6.12."} {
		if strings.HasPrefix(release, series) {
			column = i + 1
		}
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if strings.HasPrefix(line, "#") || len(fields) == 0 {
			continue
		}
		if len(fields) != 4 {
			t.Fatalf("not a row: %q", line)
		}
		probe := featureProbes[fields[0]]
		if probe == nil {
			t.Errorf("nothing asks for %s", fields[0])
			continue
		}
		rows++
		has := probe(t)
		t.Logf("feature %s: %s", fields[0], map[bool]string{true: "yes", false: "no"}[has])
		if has != (fields[column] == "yes") {
			t.Errorf("Linux %s: %s is %v, and the table says %q", release, fields[0], has, fields[column])
		}
	}
	if rows != len(featureProbes) {
		t.Errorf("%d rows, %d probes", rows, len(featureProbes))
	}
}
