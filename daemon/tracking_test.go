package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb/lbtest"
)

// A slice that is made after the watcher has looked for a reload's groups, and
// before the kernel has their rules, is announced by nobody: it is found all the
// same, and no lost hint is counted. edge T22
func TestSliceMadeDuringReload(t *testing.T) {
	dp := newMemoryPath(lbtest.DefaultLimits)
	p := start(t, oneVIP, dp, nil)
	s := p.await("well", well)
	var once sync.Once
	before := func(w bpf.Write) {
		if _, ok := w.(bpf.PutExpect); ok {
			once.Do(func() {
				if err := os.Mkdir(filepath.Join(s.DataPlane.CgroupRoot, "web.slice"), 0o755); err != nil {
					t.Error(err)
				}
			})
		}
	}
	dp.before.Store(&before)
	p.configure("[group.web]\nslices = [\"web.slice\"]\n\n" + oneVIP)
	if _, err := p.client.Reload(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	s = p.await("the slice is mapped", func(s *api.Status) bool { return s.Tracking.Anchors == 1 })
	if s.Tracking.Resync.Cause != "the kernel's table changed" || s.Tracking.Sources["overflows"] != 0 || s.Tracking.Sources["kernel_lost"] != 0 {
		t.Errorf("%+v", s.Tracking)
	}
}

// Slices with a "*" that the kernel has no room for are named, with their place, as check
// names them.
func TestCrowdIsTold(t *testing.T) {
	p := start(t, oneVIP, newMemoryPath(lbtest.DefaultLimits), nil)
	p.await("well", well)
	crowd := func(n int) {
		t.Helper()
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`"/%c*.slice"`, 'a'+i))
		}
		p.configure("[group.web]\nslices = [" + strings.Join(list, ", ") + "]\n\n" + oneVIP)
		if _, err := p.client.Reload(t.Context(), 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	told := func(s *api.Status) string { return strings.Join(s.Notes, "\n") }
	crowd(16)
	s := p.await("as many as fit", func(s *api.Status) bool { return len(s.Groups) == 1 })
	if strings.Contains(told(s), "no room") || strings.Contains(told(s), "by itself") {
		t.Errorf("of 16 it is said:\n%s", told(s))
	}
	crowd(17)
	s = p.await("one more", func(s *api.Status) bool { return len(s.Groups) == 1 })
	for _, want := range []string{`slicelb.toml:2:219: slice "/q*.slice": no room among the 16 globs below /`, "cannot match by itself, so that cgroups are mapped a moment after they are made: /q*.slice"} {
		if !strings.Contains(told(s), want) {
			t.Errorf("%q is not said:\n%s", want, told(s))
		}
	}
}

// Cgroups that find no room in the kernel's table stop nothing, and are told of for
// as long as they find none. edge T24, fault F14
func TestCgroupsLeftOut(t *testing.T) {
	limits := lbtest.DefaultLimits
	limits.Cgroups = 16
	d := bare(t, fdstoretest.New(t), newMemoryPath(limits))
	ctx := t.Context()
	d.running, d.lockHeld = sourceOf(t, "[group.web]\nslices = [\"/web.slice/*\"]\n"+oneVIP), true
	see := func(n int) bool {
		s := webCgroups(d.running, n)
		for i := range s.Cgroups {
			s.Cgroups[i].Foreign = true
		}
		d.see(ctx, s)
		if d.applyErr != nil {
			t.Fatal(d.applyErr)
		}
		d.publish()
		return slices.ContainsFunc(d.view.Load().problems, func(s string) bool { return strings.Contains(s, "no room for 6 cgroups") })
	}
	for _, c := range []struct {
		n    int
		want bool
	}{{14, false}, {20, true}, {3, false}} {
		if got := see(c.n); got != c.want {
			t.Errorf("%d cgroups: told %t, problems %q", c.n, got, d.view.Load().problems)
		}
	}
}
