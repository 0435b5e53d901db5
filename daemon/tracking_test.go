package daemon

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
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
