package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/internal/lab"
	"github.com/slicelb/slicelb/internal/scale"
)

// What only user space can say of a new cgroup is in the kernel soon after mkdir:
// that a scope is a member, and the group of a slice that a class matches.
func TestMemberLatency(t *testing.T) {
	h := identify(t)
	h.start()
	h.healthy()
	h.must("mkdir", "-p", "/sys/fs/cgroup/web.slice")
	n := max(50, scale.Count(2000))
	for what, fresh := range map[string]string{
		"a member's own entry":              "web.slice/late-%d.scope",
		"a slice that only a class matches": "loose-a.slice",
	} {
		var took []time.Duration
		for line := range strings.Lines(h.run("latency", h.property("MainPID"), strconv.Itoa(n), fresh)) {
			us, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Duration(us)*time.Microsecond)
		}
		slices.Sort(took)
		t.Logf("%s: %v after mkdir in the median, %v at p99, of %d", what, took[len(took)/2], took[len(took)*99/100], len(took))
		h.within(10*time.Millisecond, what, took)
	}
}

// playLatency makes cgroups and waits until the daemon PID has each in its table:
// latency PID COUNT FRESH. It prints how long each took after mkdir, in
// microseconds.
func playLatency(args []string) int {
	n, err := numbers(args[1])
	if err != nil {
		return fail(err)
	}
	table, err := cgroupTable(args[0])
	if err != nil {
		return fail(err)
	}
	defer table.Close()
	for i := range n[0] {
		dir := filepath.Join(lab.CgroupRoot, strings.ReplaceAll(args[2], "%d", fmt.Sprint(i)))
		begun := time.Now()
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fail(err)
		}
		id, err := inodeOf(dir)
		if err != nil {
			return fail(err)
		}
		for groupIn(table, id) == 0 {
			if time.Since(begun) > 20*time.Second {
				return fail(fmt.Errorf("%s has no entry", dir))
			}
		}
		fmt.Println(time.Since(begun).Microseconds())
		if err := os.Remove(dir); err != nil {
			return fail(err)
		}
	}
	return 0
}
