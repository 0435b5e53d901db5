package unitwatch

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const endFirst = "SLICELB_TEST_END_FIRST"

// init runs on the process's first thread.
func init() {
	if os.Getenv(endFirst) == "" {
		return
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0) // of this thread alone
}

// A process is where its threads are, although the first has ended elsewhere.
func TestCgroupOfProcessWithoutFirstThread(t *testing.T) {
	root := ownCgroup(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), endFirst+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := func() {
		in.Close()
		cmd.Wait()
	}
	defer stop()
	pid := strconv.Itoa(cmd.Process.Pid)
	for deadline := time.Now().Add(patience); !ended("/proc/" + pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the first thread has not ended")
		}
	}
	if err := os.WriteFile(filepath.Join(root, "cgroup.procs"), []byte(pid), 0); err != nil {
		t.Fatal(err)
	}
	path, err := CgroupOf("/proc", cmd.Process.Pid)
	if err != nil || filepath.Base(path) != filepath.Base(root) {
		t.Errorf("%q, %v: want …/%s", path, err, filepath.Base(root))
	}
}

func TestCgroupOfProcessThatCannotBeRead(t *testing.T) {
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "7", "cgroup"), 0o755); err != nil {
		t.Fatal(err)
	}
	if path, err := CgroupOf(proc, 7); !errors.Is(err, unix.EISDIR) {
		t.Errorf("%q, %v", path, err)
	}
}

func TestEnded(t *testing.T) {
	dir := t.TempDir()
	for stat, want := range map[string]bool{
		"7 (db) S 1 7": false, "7 (db) Z 1 7": true, "7 (db) X 1 7": true,
		"7 (a) Z (b) R 1 7": false, "7 (a) R (b) Z 1 7": true, "": false,
	} {
		if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(stat), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := ended(dir); got != want {
			t.Errorf("%q: %v", stat, got)
		}
	}
	if ended(filepath.Join(dir, "none")) {
		t.Error("a thread that is not there has not ended before others")
	}
}
