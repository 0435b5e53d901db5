package unitwatch

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/internal/lab/labtest"
)

// edge D26
func TestCgroupMounts(t *testing.T) {
	const (
		unified = "25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
		hybrid  = "26 20 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		v1      = "27 20 0:24 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
		other   = "28 20 0:25 / /mnt/a\\040b\\134c rw master:1 shared:2 - cgroup2 none rw\n"
		rest    = "20 1 8:1 / / rw - ext4 /dev/sda1 rw\nbroken\n\n21 1 8:1 / /x rw\n"
	)
	tests := []struct {
		name, in string
		mounts   []string
		v1       bool
	}{
		{"none", rest, nil, false},
		{"unified", rest + unified, []string{"/sys/fs/cgroup"}, false},
		{"hybrid", v1 + hybrid, []string{"/sys/fs/cgroup/unified"}, true},
		{"v1 only", rest + v1, nil, true},
		{"elsewhere, the usual place first", other + unified, []string{"/sys/fs/cgroup", `/mnt/a b\c`}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mounts, v1, err := cgroupMounts(strings.NewReader(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.mounts, mounts); diff != "" || v1 != tt.v1 {
				t.Errorf("v1 %v, mounts (-want +got):\n%s", v1, diff)
			}
		})
	}
}

func TestFindRootHere(t *testing.T) {
	path, err := FindRoot()
	if err != nil {
		unable(t, err)
	}
	id, err := CheckRoot(path)
	if err != nil || !IsHierarchyRoot(id) {
		t.Errorf("%s: id %d, %v", path, id, err)
	}
	own := ownCgroup(t)
	id, err = CheckRoot(own)
	if err != nil || IsHierarchyRoot(id) || id != cgroupID(t, own) {
		t.Errorf("%s: id %d, %v", own, id, err)
	}
}

func TestCheckRootRefuses(t *testing.T) {
	for path, want := range map[string]RootReason{t.TempDir(): NotCgroup2, "/proc": NotCgroup2, "/nonexistent": NotAccessible} {
		_, err := CheckRoot(path)
		var e *RootError
		if !errors.As(err, &e) || e.Reason != want || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// edge D27: the lab is in a cgroup namespace of its own
func TestFindRootInANamespace(t *testing.T) {
	l := labtest.Shared(t)
	cmd := l.Self(t.Context())
	cmd.Env = append(cmd.Env, printRoot+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), `root "/sys/fs/cgroup": in this cgroup namespace`) {
		t.Errorf("inside the lab:\n%s", out)
	}
}

// printRoot is what a test runs inside the lab, by the environment.
const printRoot = "UNITWATCH_PRINT_ROOT"

func printRootAndExit() {
	path, err := FindRoot()
	fmt.Println(path, err)
	var e *RootError
	if !errors.As(err, &e) || e.Reason != NotTheRoot {
		os.Exit(1)
	}
	if _, err := CheckRoot(e.Path); err != nil { // named explicitly it may be used
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}
