package lab_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/slicelb/slicelb/internal/lab"
	"github.com/slicelb/slicelb/internal/lab/labtest"
)

// victimVar makes this test binary a program that boots a lab and ends in the
// way the variable says.
const victimVar = "SLICELB_LAB_VICTIM"

func formatInode(ino uint64) string { return strconv.FormatUint(ino, 10) }

// beVictim boots a lab, writes its traces to standard output and waits for a
// line on standard input, then ends.
func beVictim(how string) {
	ctx, cancel := context.WithCancel(context.Background())
	l, err := lab.Start(ctx, lab.Options{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(l.PID(), l.CgroupDir())
	bufio.NewReader(os.Stdin).ReadString('\n')
	switch how {
	case "panic":
		panic("as asked")
	case "cancel":
		cancel()
		<-l.Exited()
		l.Stop() // waits for the end of what cancel began
	case "stop":
		l.Stop()
		l.Stop()
	}
	os.Exit(0)
}

// hostState is what a lab might leave behind on the host: mounts that escaped
// from its namespace, files where programs like to put theirs.
func hostState(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var state strings.Builder
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " lab ") || strings.Contains(line, " /tmp") {
			state.WriteString(line)
		}
	}
	for _, dir := range []string{os.TempDir(), "/run/netns", "/run", "/etc"} {
		entries, _ := filepath.Glob(filepath.Join(dir, "slicelb-lab*"))
		fmt.Fprintln(&state, dir, entries)
	}
	return state.String()
}

// processesIn counts the processes in a network namespace.
func processesIn(netns string) (n int) {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, link := range links {
		if ns, err := os.Readlink(link); err == nil && ns == netns {
			n++
		}
	}
	return n
}

// However the owner of a lab ends, nothing of the lab stays.
func TestNothingLeft(t *testing.T) {
	labtest.Boot(t).Stop() // skips where no lab is possible
	tests := []struct {
		how string
		end os.Signal // nil: it ends by itself
	}{
		{"stop", nil}, {"cancel", nil}, {"exit", nil}, {"panic", nil},
		{"interrupt", os.Interrupt}, {"terminate", syscall.SIGTERM}, {"kill", os.Kill},
	}
	for _, tt := range tests {
		t.Run(tt.how, func(t *testing.T) {
			before := hostState(t)
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), victimVar+"="+tt.how)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, _ := bufio.NewReader(stdout).ReadString('\n')
			var pid int
			var dir string
			if _, err := fmt.Sscan(line, &pid, &dir); err != nil {
				t.Fatalf("the victim said %q", line)
			}
			// Held open: the number of one that is gone may be another lab's next.
			held, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			netns, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", held.Fd()))
			if err != nil || processesIn(netns) < 2 {
				t.Fatalf("the lab's network namespace %q has %d processes, %v", netns, processesIn(netns), err)
			}
			if tt.end != nil {
				if err := cmd.Process.Signal(tt.end); err != nil {
					t.Fatal(err)
				}
			} else {
				stdin.Close()
			}
			cmd.Wait()
			gone := func() bool {
				_, err := os.Lstat(dir)
				return os.IsNotExist(err) && processesIn(netns) == 0
			}
			if (tt.how == "stop" || tt.how == "cancel") && !gone() {
				t.Error("Stop returned before the end")
			}
			eventually(t, "the lab is gone", gone)
			if after := hostState(t); after != before {
				t.Errorf("the host was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// A lab whose owner and janitor were both killed is swept by the next one; that
// of a living owner is not.
func TestSweep(t *testing.T) {
	l := labtest.Boot(t)
	parent, name := filepath.Split(l.CgroupDir())
	if strings.HasSuffix(name, ".scope") {
		t.Skip("systemd removes its scopes by itself")
	}
	owner := exec.Command("sleep", "infinity")
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(name, "-") // slicelb lab NAMESPACE PID START N
	parts[3] = strconv.Itoa(owner.Process.Pid)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", owner.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	parts[4] = strings.Fields(string(stat))[21]
	dir := filepath.Join(parent, strings.Join(parts, "-"))
	if err := os.MkdirAll(filepath.Join(dir, "a.slice/b.slice"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, d := range []string{"a.slice/b.slice", "a.slice", "."} {
			os.Remove(filepath.Join(dir, d))
		}
	})
	exists := func() bool { _, err := os.Stat(dir); return err == nil }

	labtest.Boot(t)
	if !exists() {
		t.Error("the cgroup of a living owner was swept")
	}
	owner.Process.Kill()
	owner.Wait()
	labtest.Boot(t)
	if exists() {
		t.Error("the cgroup of a dead owner was not swept")
	}
}
