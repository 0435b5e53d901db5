package daemon

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
)

// countedPath has counted calls before it was adopted.
type countedPath struct{ *memoryPath }

func (c countedPath) Counters() (*bpf.CounterSnapshot, error) {
	n, err := c.memoryPath.Counters()
	d, dumped := c.Dump()
	n.Cells = map[uint32]bpf.Counters{}
	for i := range d.CellInfos {
		n.Cells[i] = bpf.Counters{Connects: 78511}
	}
	return n, errors.Join(err, dumped)
}

// closedPath was closed under those who read it.
type closedPath struct{ *memoryPath }

func (c closedPath) Counters() (*bpf.CounterSnapshot, error) { return nil, bpf.ErrClosed }

// heir is a daemon that was handed the data plane of another, and has not opened it.
func heir(t *testing.T, m *fdstoretest.Manager, dp dataPath) *daemon {
	d := bare(t, m, dp)
	d.handed = []fdstore.FD{fdstoretest.Memfd(t, "slb1-map")}
	d.open = func(bpf.Options, []bpf.NamedFD) (opened, error) { return opened{dataPath: dp, adopted: true}, nil }
	d.before, d.inherited = true, true
	d.running = sourceOf(t, oneVIP)
	d.publish()
	return d
}

const dbConnects = `slicelb_vip_calls_total{verdict="connects",vip="db"} `

// scrape is the daemon's metrics, over HTTP.
func scrape(d *daemon) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	d.web.metrics(d).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w
}

// What asks while a daemon starts waits for the counters that it adopts, and for who is in
// its groups, and gets those: they never seem to begin anew.
func TestStartWaitsForCounters(t *testing.T) {
	m := fdstoretest.New(t)
	dp := countedPath{newMemoryPath(lbtest.DefaultLimits)}
	synctest.Test(t, func(t *testing.T) {
		d := heir(t, m, dp)
		a := answers{d}
		scraped, status, top := make(chan string, 1), make(chan uint64, 1), make(chan uint64, 1)
		go func() { scraped <- scrape(d).Body.String() }()
		go func() {
			s, err := a.Status(t.Context())
			if err != nil || len(s.VIPs) != 1 || s.DataPlane.Unread {
				t.Errorf("status: %+v, %v", s, err)
				status <- 0
				return
			}
			status <- s.VIPs[0].Counters.Connects
		}()
		go func() {
			s, err := a.Top(t.Context())
			if err != nil || len(s.VIPs) != 1 {
				t.Errorf("top: %+v, %v", s, err)
				top <- 0
				return
			}
			top <- s.VIPs[0].Counters.Connects
		}()
		synctest.Wait()
		if len(scraped)+len(status)+len(top) > 0 {
			t.Error("answered before anything could be read")
		}
		d.snap = &unitwatch.Snapshot{Tree: d.running.tree, Complete: true}
		if _, err := d.apply(t.Context(), d.running, d.snap); err != nil {
			t.Error(err)
		}
		d.publish()
		select {
		case <-d.opening.passed:
			t.Error("answered before it was ready")
		default:
		}
		d.ready = true
		d.publish()
		if text := <-scraped; !strings.Contains(text, dbConnects+"78511\n") {
			t.Errorf("metrics:\n%s", text)
		}
		if n := <-status; n != 78511 {
			t.Errorf("status has %d", n)
		}
		if n := <-top; n != 78511 {
			t.Errorf("top has %d", n)
		}
	})
}

// What cannot be read, as that of a version with another layout, is counted by
// nobody: the metrics tell of the daemon alone, status says why, and the rest is an
// error that names when to ask again. It is waited for once.
func TestCountersThatCannotBeRead(t *testing.T) {
	m := fdstoretest.New(t)
	synctest.Test(t, func(t *testing.T) {
		d := heir(t, m, nil)
		a := answers{d}
		begun := time.Now()
		if _, err := a.Top(t.Context()); !api.IsBusy(err) || time.Since(begun) != openPatience {
			t.Errorf("top after %v: %v", time.Since(begun), err)
		}
		d.applyErr = bpf.ErrLayout
		d.publish()
		begun = time.Now()
		s, err := a.Status(t.Context())
		if err != nil || !s.DataPlane.Unread || s.State != api.Degraded || len(s.VIPs) > 0 || !strings.Contains(strings.Join(s.Problems, "\n"), unreadText) {
			t.Errorf("status: %+v, %v", s, err)
		}
		for what, err := range map[string]error{
			"top": second(a.Top(t.Context())), "a VIP": second(a.VIP(t.Context(), "db")), "policy": second(a.Policy(t.Context())),
			"dump": second(a.Dump(t.Context())), "the page": second(a.picture(t.Context())),
			"explain": second(a.Explain(t.Context(), api.Question{Cgroup: "/", Address: "10.96.0.10:80"})),
		} {
			if !api.IsBusy(err) {
				t.Errorf("%s: %v", what, err)
			}
		}
		w := scrape(d)
		if text := w.Body.String(); w.Code != http.StatusOK || strings.Contains(text, `vip="db"`) || strings.Contains(text, "slicelb_table_entries{") ||
			strings.Contains(text, "slicelb_kernel_events_total{") || !strings.Contains(text, "slicelb_ready 0\n") {
			t.Errorf("%d:\n%s", w.Code, text)
		}
		if took := time.Since(begun); took != 0 {
			t.Errorf("waited for again: %v", took)
		}
	})
}

// A daemon that stops fails a scrape, rather than to say that nothing was called.
func TestStopFailsScrapes(t *testing.T) {
	dp := newMemoryPath(lbtest.DefaultLimits)
	d := bare(t, fdstoretest.New(t), closedPath{dp})
	d.running, d.ready = sourceOf(t, oneVIP), true
	d.dp.dataPath = closedPath{dp}
	d.publish()
	if w := scrape(d); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("%d, %v:\n%s", w.Code, w.Header(), w.Body)
	}
	a := answers{d}
	if s, err := a.Status(t.Context()); !api.IsBusy(err) {
		t.Errorf("status: %+v, %v", s, err)
	}
	if top, err := a.Top(t.Context()); !api.IsBusy(err) {
		t.Errorf("top: %+v, %v", top, err)
	}
}

func second[T any](_ T, err error) error { return err }
