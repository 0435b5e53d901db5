package daemon

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
)

// toldHints are what a test has the kernel say.
type toldHints chan bpf.Event

func (h toldHints) Close() error { return nil }

func (h toldHints) Read() (bpf.Event, error) {
	e, ok := <-h
	if !ok {
		return bpf.Event{}, io.EOF
	}
	return e, nil
}

// A watcher that is behind is not waited for: what finds no room is made up for by
// one look at everything. edge T17
func TestHintsWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const room = 4
		d := &daemon{log: slog.New(slog.DiscardHandler), hints: make(chan unitwatch.Hint, room)}
		kernel := make(toldHints)
		defer close(kernel)
		go d.readHints(t.Context(), kernel)
		for i := range uint64(room + 1) {
			kernel <- bpf.Event{ID: i + 1, Kind: bpf.Mkdir}
		}
		synctest.Wait()
		for i := range uint64(room) {
			if h := <-d.hints; h.ID != i+1 || h.Kind != unitwatch.HintMkdir {
				t.Errorf("hint %d: %+v", i, h)
			}
		}
		synctest.Wait()
		kernel <- bpf.Event{ID: 100, Kind: bpf.Rmdir}
		synctest.Wait()
		for i, want := range []unitwatch.HintKind{unitwatch.HintLost, unitwatch.HintRmdir} {
			select {
			case h := <-d.hints:
				if h.Kind != want {
					t.Errorf("after the storm, %d: %+v", i, h)
				}
			default:
				t.Fatal("what found no room is made up for by nothing")
			}
		}
	})
}

// Hints that the kernel itself lost are made up for too, long before the clock's own
// look. edge T17
func TestEventsLostInTheKernel(t *testing.T) {
	dp := newMemoryPath(lbtest.DefaultLimits)
	p := start(t, "[group.web]\nslices = [\"web.slice\"]\n\n"+oneVIP, dp, nil)
	s := p.await("well", well)
	if err := os.MkdirAll(filepath.Join(s.DataPlane.CgroupRoot, "web.slice", "lost.scope"), 0o755); err != nil {
		t.Fatal(err)
	}
	dp.stats.Store(&bpf.Stats{EventsLost: 2})
	s = p.await("found", func(s *api.Status) bool { return s.Tracking.Members == 1 && s.Tracking.Sources["overflows"] > 0 })
	if s.Tracking.Resync.Cause != "lost events" || s.Tracking.Sources["overflows"] != 1 || s.Tracking.Sources["kernel_lost"] != 0 {
		t.Errorf("%+v", s.Tracking)
	}
}
