package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/observe"
	"github.com/slicelb/slicelb/unitwatch"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// memoryDecisions is what a data plane in memory tells of decisions.
type memoryDecisions struct {
	in      chan bpf.Decision
	wishes  *atomic.Pointer[bpf.Watch]
	hooks   *atomic.Pointer[[]string] // that are wanted
	closed  chan struct{}
	closing *sync.Once
}

func newMemoryDecisions() memoryDecisions {
	return memoryDecisions{make(chan bpf.Decision), &atomic.Pointer[bpf.Watch]{}, &atomic.Pointer[[]string]{}, make(chan struct{}), &sync.Once{}}
}

func (m memoryDecisions) Read(d *bpf.Decision) error {
	select {
	case *d = <-m.in:
		return nil
	case <-m.closed:
		return io.EOF
	}
}

func (m memoryDecisions) Poll(bool)    {}
func (m memoryDecisions) Close() error { m.closing.Do(func() { close(m.closed) }); return nil }

func (m *memoryPath) Decisions() (observe.Reader, error) { return m.told, nil }
func (m *memoryPath) Watch(w *bpf.Watch) error           { m.told.wishes.Store(w); return nil }
func (m *memoryPath) Time(bool) error                    { return nil }
func (m *memoryPath) Latencies() map[uint32]bpf.Latency  { return map[uint32]bpf.Latency{1: {2: 7}} }
func (m *memoryPath) Suppressed() map[uint32]uint64      { return nil }
func (m *memoryPath) GroupName(i uint32) string          { return fmt.Sprintf("group%d", i) }
func (m *memoryPath) VIPName(uint32) string              { return "db" }
func (m *memoryPath) GroupIndex(string) (uint32, bool)   { return 0, false }
func (m *memoryPath) VIPCells(string) []uint32           { return []uint32{1} }

func refusedCall() bpf.Decision {
	d := bpf.Decision{
		Time: time.Second, Asked: netip.MustParseAddrPort("10.96.0.10:80"), Proto: bpf.TCP, Told: bpf.Rejected,
		Reason: bpf.NoClient, TGID: 7, VIP: 1, Cell: 1,
	}
	copy(d.Dir[:], "evil\x1b[2J.service")
	return d
}

// A watcher hears of what comes, over the socket; when it goes away, nothing is
// wanted any more, and when the daemon stops, its stream ends.
func TestObserve(t *testing.T) {
	p := start(t, oneVIP, newMemoryPath(lbtest.DefaultLimits), nil)
	p.await("well", well)
	p.dp.told.in <- refusedCall()

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	lines := make(chan api.Observed, 16)
	ended := make(chan error, 1)
	// What was stored comes first: it was refused.
	go func() {
		ended <- p.client.Observe(ctx, api.Observation{VIP: "db", Last: -1, Follow: true}, func(o *api.Observed) error {
			lines <- *o
			return nil
		})
	}()
	first := <-lines
	if first.Decision == nil || first.Decision.VIP != "db" || first.Decision.Unit != "evil\x1b[2J.service" || first.Decision.Group != "host" {
		t.Errorf("stored: %+v", first.Decision)
	}
	if w := p.dp.told.wishes.Load(); w == nil || len(w.Cells) != 1 {
		t.Errorf("wanted: %+v", w)
	}
	// For as long as somebody watches, what sees the answers of connects is attached.
	deadline := time.Now().Add(10 * time.Second)
	for h := p.dp.told.hooks.Load(); !slices.Contains(*h, bpf.SockOps); h = p.dp.told.hooks.Load() {
		if time.Now().After(deadline) {
			t.Fatalf("wanted hooks: %v", *h)
		}
		time.Sleep(time.Millisecond)
	}
	d := refusedCall()
	d.Told, d.Reason, d.Backend = bpf.Translated, bpf.Chosen, netip.MustParseAddrPort("192.0.2.1:80")
	p.dp.told.in <- d
	if second := <-lines; second.Decision == nil || second.Decision.Backend != "192.0.2.1:80" || second.Decision.Verdict != "translated" {
		t.Errorf("what came: %+v", second.Decision)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Observe: %v", err)
	}
	deadline = time.Now().Add(10 * time.Second)
	for p.dp.told.wishes.Load() != nil {
		if time.Now().After(deadline) {
			t.Fatal("still wanted when the watcher has gone")
		}
		time.Sleep(time.Millisecond)
	}

	// Without -f it ends by itself.
	var verdicts []string
	err := p.client.Observe(t.Context(), api.Observation{Last: -1}, func(o *api.Observed) error {
		verdicts = append(verdicts, o.Decision.Verdict)
		return nil
	})
	if diff := cmp.Diff([]string{"rejected", "translated"}, verdicts); err != nil || diff != "" {
		t.Errorf("stored (-want +got): %s, %v", diff, err)
	}
	var e *api.Error
	for code, o := range map[api.Code]api.Observation{
		api.NotFound:   {VIP: "nosuch"},
		api.BadRequest: {Verdicts: []string{"nosuch"}},
	} {
		if err := p.client.Observe(t.Context(), o, nil); !errors.As(err, &e) || e.Code != code {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if err := p.client.Observe(t.Context(), api.Observation{Group: "nosuch/x.scope"}, nil); !errors.As(err, &e) || e.Code != api.NotFound {
		t.Errorf("no such group: %v", err)
	}

	go func() {
		ended <- p.client.Observe(t.Context(), api.Observation{Last: 1, Follow: true}, func(o *api.Observed) error {
			lines <- *o
			return nil
		})
	}()
	<-lines
	p.stop()
	if err := <-ended; !errors.Is(err, api.ErrStreamEnded) {
		t.Errorf("at the daemon's end: %v", err)
	}
}

// Callers are named by the newest snapshot, and by what the kernel says of their
// directories.
func TestCallers(t *testing.T) {
	snap := &unitwatch.Snapshot{Cgroups: []unitwatch.Cgroup{
		{ID: 10, Path: "/web.slice", Group: "web", Match: &anchor.Match{Anchor: true}, Unit: "web.slice"},
		{ID: 11, Path: "/web.slice/a.service", Group: "web", Unit: "a.service"},
		{ID: 12, Path: "/jobs.slice/x.scope", Group: "jobs/x.scope", Unit: "x.scope"},
	}}
	var v atomic.Pointer[view]
	v.Store(&view{snap: snap})
	c := &callers{view: &v}
	dir := func(s string) (n bpf.DirName) { copy(n[:], s); return n }
	for _, tt := range []struct {
		name                      string
		own, member               uint64
		group, dir, parent        string
		wantGroup, unit, wantPath string
	}{
		{"known", 11, 11, "web", "a.service", "web.slice", "web", "a.service", "/web.slice/a.service"},
		{"below it", 99, 11, "web", "container", "a.service", "web", "a.service", "/web.slice/a.service/container"},
		{"far below it", 99, 11, "web", "inner", "container", "web", "a.service", "/web.slice/a.service/…/container/inner"},
		{"new below an anchor", 99, 10, "web", "b.service", "web.slice", "web", "b.service", "/web.slice/b.service"},
		{"split child", 12, 12, "jobs", "x.scope", "jobs.slice", "jobs/x.scope", "x.scope", "/jobs.slice/x.scope"},
		{"host", 99, 0, "host", "sshd.service", "system.slice", "host", "sshd.service", "…/system.slice/sshd.service"},
		{"host's container", 99, 0, "host", "container", "libpod-1.scope", "host", "libpod-1.scope", "…/libpod-1.scope/container"},
		{"the root", 1, 0, "host", "", "", "host", "", ""},
	} {
		e := &observe.Event{Group: tt.group}
		e.Cgroup, e.Member, e.Dir, e.Parent = tt.own, tt.member, dir(tt.dir), dir(tt.parent)
		c.name(e)
		got := []string{e.Group, e.Unit, e.Path}
		if diff := cmp.Diff([]string{tt.wantGroup, tt.unit, tt.wantPath}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// The journal has so many refusals of each group in a while, and the number of
// the others, to the last one.
func TestRefusalsInJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out syncBuffer
		r := newRefusals(slog.New(slog.NewTextHandler(&out, nil)))
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- r.run(ctx) }()
		refuse := func(group string, n int) {
			for range n {
				e := &observe.Event{Decision: refusedCall(), Group: group, VIP: "db", Unit: "evil\x1b[2J.service"}
				r.add(e)
				synctest.Wait()
			}
		}
		down := refusedCall()
		down.Reason = bpf.AllDown
		r.add(&observe.Event{Decision: down, Group: "web"}) // that is said of the VIP, once
		refuse("web", refusalsTold+5)
		refuse("jobs", 1)
		r.miss(observe.Lost{Where: observe.LostBudget, Group: "web", Count: 100})
		r.miss(observe.Lost{Where: observe.LostWatcher, Count: 100}) // nobody's refusals
		synctest.Wait()
		if n := strings.Count(out.String(), "msg=refused event=rejected group=web"); n != refusalsTold {
			t.Errorf("%d of web were told one by one, want %d", n, refusalsTold)
		}
		if !strings.Contains(out.String(), `unit="evil\x1b[2J.service"`) || !strings.Contains(out.String(), "group=jobs") {
			t.Errorf("log:\n%s", out.String())
		}
		time.Sleep(refusalWindow + time.Second)
		synctest.Wait()
		if !strings.Contains(out.String(), "event=suppressed group=web number=105") || strings.Contains(out.String(), "group=jobs number") {
			t.Errorf("log:\n%s", out.String())
		}
		refuse("web", 1)
		if n := strings.Count(out.String(), "msg=refused event=rejected group=web"); n != refusalsTold+1 {
			t.Errorf("%d after the window, want %d", n, refusalsTold+1)
		}
		audited := refusedCall()
		audited.Told = bpf.Audited
		r.add(&observe.Event{Decision: audited, Group: "web"})
		synctest.Wait()
		if !strings.Contains(out.String(), "level=INFO msg=audited event=audited group=web") {
			t.Errorf("what is allowed and recorded is told as something else:\n%s", out.String())
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A VIP that goes down or comes back is said once, with fields for the journal.
func TestVIPDownAndUp(t *testing.T) {
	type entry struct {
		message string
		fields  map[string]string
	}
	var mu sync.Mutex
	var sent []entry
	before := sendJournal
	t.Cleanup(func() { sendJournal = before })
	sendJournal = func(message string, _ int, fields map[string]string) error {
		mu.Lock()
		defer mu.Unlock()
		sent = append(sent, entry{message, fields})
		return nil
	}
	p := start(t, oneVIP, newMemoryPath(lbtest.DefaultLimits), map[string]string{"JOURNAL_STREAM": "8:1"})
	p.await("well", well)
	for _, state := range []string{"maint", "ready"} {
		if _, err := p.client.SetBackend(t.Context(), api.BackendChange{VIP: "db", Address: "192.0.2.1:80", State: state}); err != nil {
			t.Fatal(err)
		}
	}
	p.configure("[vip.db]\nfrontend = 1\n")
	if _, err := p.client.Reload(t.Context(), 10*time.Second); err == nil {
		t.Error("reloaded")
	}
	p.configure(oneVIP)
	if _, err := p.client.Reload(t.Context(), 10*time.Second); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	var got []string
	for _, e := range sent {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.fields["SLICELB_EVENT"], e.fields["SLICELB_VIP"], e.fields["SLICELB_BACKEND"])))
		if e.fields["MESSAGE_ID"] != messageIDs[e.fields["SLICELB_EVENT"]] || !strings.HasPrefix(e.message, "msg=") {
			t.Errorf("%+v", e)
		}
	}
	want := []string{
		"vip-down db", "backend-ordered db 192.0.2.1:80", "vip-up db", "backend-ordered db 192.0.2.1:80", "reload-failed", "reloaded",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s\nlog:\n%s", diff, p.out)
	}
}
