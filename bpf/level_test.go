package bpf

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/slicelb/slicelb/internal/kerneltest"
)

// levelEnv has this program print the level of the cgroup that it names.
const levelEnv = "SLICELB_LEVEL"

func printLevel(cgroup string) int {
	id, err := strconv.ParseUint(cgroup, 10, 64)
	if err != nil {
		return 1
	}
	level, found, err := Level(id)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(level, found)
	return 0
}

// A process's own cgroup and those above it have their level in the hierarchy; others have
// none for it. edge D27
func TestKernelLevel(t *testing.T) {
	root := kerneltest.NewCgroup(t)
	deep := root.Make(t, "a", "b", "c")
	beside := root.Make(t, "a", "x")
	level := depth(root)
	for _, test := range []struct {
		of, in *kerneltest.Cgroup
		want   string
	}{
		{root, root, strconv.Itoa(level) + " true"},
		{root, deep, strconv.Itoa(level) + " true"},
		{deep, deep, strconv.Itoa(level+3) + " true"},
		{beside, deep, "0 false"},
		{deep, root, "0 false"},
	} {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(test.in.Open(t).Fd())}
		cmd.Env = append(os.Environ(), levelEnv+"="+strconv.FormatUint(test.of.ID(t), 10))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if got := strings.TrimSpace(string(out)); err != nil || got != test.want {
			t.Errorf("%s, seen from %s: %q, %v, want %q", test.of.Path, test.in.Path, got, err, test.want)
		}
	}
}
