package kerneltest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Cgroups of a process that was killed go with the next one that makes some; those
// of a process that lives stay, and so does what somebody is in or what is not ours.
func TestLeftovers(t *testing.T) {
	root := NewCgroup(t)
	c := exec.Command("true")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	ended := c.Process.Pid // and waited for: nobody has that number for some time
	name := func(namespace uint64, pid int) string { return fmt.Sprintf("slicelb-test-%d-%d-1", namespace, pid) }
	kept := []string{
		name(pidNamespace(), os.Getpid()), name(pidNamespace()+1, ended), "other", "slicelb-test-" + strconv.Itoa(ended) + "-x",
	}
	left := name(pidNamespace(), ended)
	root.Make(t, left, "a.slice", "b.scope")
	for _, n := range kept {
		root.Make(t, n)
	}
	full := root.Make(t, fmt.Sprintf("slicelb-test-%d-%d-2", pidNamespace(), ended), "c.scope")
	member := exec.Command("cat")
	stdin, err := member.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	member.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(full.Open(t).Fd())}
	if err := member.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := member.Wait(); err != nil {
			t.Error(err)
		}
	})

	sweepLeftovers(root.Path)
	for _, n := range append(kept, filepath.Base(filepath.Dir(full.Path))) {
		if _, err := os.Stat(filepath.Join(root.Path, n)); err != nil {
			t.Error(err)
		}
	}
	if err := unix.Access(filepath.Join(root.Path, left), unix.F_OK); err != unix.ENOENT {
		t.Errorf("%s: %v", left, err)
	}
}
