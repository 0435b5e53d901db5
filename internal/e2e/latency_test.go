package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/internal/lab"
	"github.com/slicelb/slicelb/internal/scale"
)

// What only user space can say of a new cgroup is there soon after mkdir: a scope's own
// entry, its name in what the daemon answers, and the group of a slice that a class
// matches.
func TestMemberLatency(t *testing.T) {
	h := identify(t)
	h.start()
	h.healthy()
	h.must("mkdir", "-p", "/sys/fs/cgroup/web.slice")
	n := max(50, scale.Count(2000))
	for _, test := range []struct{ what, group, fresh string }{
		{"a member's own entry", "", "web.slice/late-%d.scope"},
		{"a member's name", "web", "web.slice/late-%d.scope"},
		{"a slice that only a class matches", "", "loose-a.slice"},
	} {
		var took, late []time.Duration
		for line := range strings.Lines(h.run("latency", h.property("MainPID"), strconv.Itoa(n), test.fresh, test.group)) {
			us, err := numbers(strings.Fields(line)...)
			if err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Duration(us[0])*time.Microsecond)
			late = append(late, time.Duration(us[1])*time.Microsecond)
		}
		slices.Sort(took)
		slices.Sort(late)
		p99 := func(d []time.Duration) time.Duration { return d[len(d)*99/100] }
		t.Logf("%s: %v after mkdir in the median, %v at p99, of %d; a timer here is %v late at p99", test.what, took[len(took)/2], p99(took), len(took), p99(late))
		// On a machine that does much else, each of those that pass a hint on is late, and
		// a timer tells of one of them: there half must still be known long before anything
		// but the hint would have them looked for.
		limit, held := 10*time.Millisecond, took[len(took)/2]
		switch idle := p99(late) < time.Millisecond && late[len(late)-1] < limit; {
		case !idle:
			limit = 200 * time.Millisecond
		case scale.Factor() >= 1:
			held = p99(took)
		}
		if held > limit {
			t.Errorf("%s: more than %v", test.what, limit)
		}
	}
}

// playLatency makes cgroups and waits until the daemon PID has each in its table, or
// names it in a group: latency PID COUNT FRESH GROUP. It prints how long each took after
// mkdir, and how late a timer was just before, in microseconds.
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
	client := api.NewClient(api.DefaultSocket)
	known := func(name string, id uint64) (bool, error) {
		if args[3] == "" {
			return groupIn(table, id) != 0, nil
		}
		g, err := client.Group(context.Background(), args[3])
		return err == nil && slices.ContainsFunc(g.Cgroups, func(c api.Cgroup) bool { return c.ID == id && c.Path == "/"+name }), err
	}
	for i := range n[0] {
		asleep := time.Now()
		<-time.After(time.Millisecond)
		late := time.Since(asleep) - time.Millisecond
		name := strings.ReplaceAll(args[2], "%d", fmt.Sprint(i))
		dir := filepath.Join(lab.CgroupRoot, name)
		begun := time.Now()
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fail(err)
		}
		id, err := inodeOf(dir)
		if err != nil {
			return fail(err)
		}
		for {
			there, err := known(name, id)
			if err != nil {
				return fail(err)
			}
			if there {
				break
			}
			if time.Since(begun) > 20*time.Second {
				return fail(fmt.Errorf("%s has no entry", dir))
			}
		}
		fmt.Println(time.Since(begun).Microseconds(), late.Microseconds())
		if err := os.Remove(dir); err != nil {
			return fail(err)
		}
	}
	return 0
}
