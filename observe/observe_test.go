package observe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slicelb/slicelb/bpf"
)

// fake is a data plane: group n is called gN, cell n belongs to VIP vN.
type fake struct {
	mu         sync.Mutex
	wish       *bpf.Watch
	wishes     int
	polls      bool
	unheard    bool // the programs would have told without waking up a reader that waits
	timed      bool
	lost       uint64
	suppressed map[uint32]uint64
	in         chan bpf.Decision
	once       sync.Once
	closed     chan struct{}
}

func newFake() *fake {
	return &fake{in: make(chan bpf.Decision), closed: make(chan struct{}), suppressed: map[uint32]uint64{}}
}

func (f *fake) Watch(w *bpf.Watch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wish = w
	f.wishes++
	f.unheard = f.unheard || w != nil && !f.polls
	return nil
}

func (f *fake) Time(on bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.timed = on
	return nil
}

func (f *fake) GroupName(i uint32) string { return fmt.Sprintf("g%d", i) }
func (f *fake) VIPName(i uint32) string   { return fmt.Sprintf("v%d", i) }

func (f *fake) GroupIndex(name string) (uint32, bool) {
	var i uint32
	_, err := fmt.Sscanf(name, "g%d", &i)
	return i, err == nil
}

func (f *fake) VIPCells(name string) []uint32 {
	var i uint32
	if _, err := fmt.Sscanf(name, "v%d", &i); err != nil {
		return nil
	}
	return []uint32{i}
}

func (f *fake) Stats() (bpf.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bpf.Stats{DecisionsLost: f.lost}, nil
}

func (f *fake) Suppressed() map[uint32]uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[uint32]uint64{}
	for k, v := range f.suppressed {
		out[k] = v
	}
	return out
}

func (f *fake) Read(d *bpf.Decision) error {
	select {
	case *d = <-f.in:
		return nil
	case <-f.closed:
		return io.EOF
	}
}

func (f *fake) Poll(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.polls = on
	f.unheard = f.unheard || f.wish != nil && !on
}

func (f *fake) Close() error { f.once.Do(func() { close(f.closed) }); return nil }

func (f *fake) wants() *bpf.Watch {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wish
}

// running is an observer of f, until the test ends.
func running(t *testing.T, f *fake, opts Options) *Observer {
	t.Helper()
	opts.Log = slog.New(slog.DiscardHandler)
	opts.At = func(d time.Duration) time.Time { return time.Unix(0, int64(d)) }
	if opts.Names == nil {
		opts.Names = func(*Event) {}
	}
	if opts.Refused == nil {
		opts.Refused = func(*Event) {}
	}
	if opts.Missed == nil {
		opts.Missed = func(Lost) {}
	}
	o := New(opts)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx, f, f) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return o
}

func decision(group, vip uint32, told bpf.Told) bpf.Decision {
	return bpf.Decision{Group: group, VIP: vip, Cell: vip, Told: told, Asked: netip.MustParseAddrPort("10.96.0.1:80")}
}

func names(events []Event) []string {
	out := []string{}
	for _, e := range events {
		out = append(out, fmt.Sprintf("%s %s %s", e.Group, e.VIP, e.Told))
	}
	return out
}

// Each watcher hears what it wants; the programs are asked for what all of them
// want, and for nothing when the last is gone.
func TestWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		o := running(t, f, Options{Names: func(e *Event) {
			if e.Decision.Group == 3 {
				e.Group = "g3/x.scope"
			}
		}})
		synctest.Wait()
		if f.wants() != nil {
			t.Fatalf("wanted with nobody watching: %+v", f.wants())
		}
		watch := func(q Query) *Watcher {
			w, _, err := o.Watch(q)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		web := watch(Query{Group: "g1", VIP: "v7"})
		if diff := cmp.Diff(&bpf.Watch{Told: bpf.Tolds, Group: 1, Cells: []uint32{7}}, f.wants()); diff != "" {
			t.Errorf("one watcher (-want +got):\n%s", diff)
		}
		denied := watch(Query{Told: []bpf.Told{bpf.Denied}})
		if diff := cmp.Diff(&bpf.Watch{Told: bpf.Tolds, AnyGroup: true}, f.wants()); diff != "" {
			t.Errorf("two watchers (-want +got):\n%s", diff)
		}
		web.Close()
		if diff := cmp.Diff(&bpf.Watch{Told: []bpf.Told{bpf.Denied}, AnyGroup: true}, f.wants()); diff != "" {
			t.Errorf("the second alone (-want +got):\n%s", diff)
		}
		web = watch(Query{Group: "g1", VIP: "v7"})
		split := watch(Query{Group: "g3/x.scope"})
		parent := watch(Query{Group: "g3"})
		host := watch(Query{Group: Host})

		for _, d := range []bpf.Decision{
			decision(1, 7, bpf.Translated), decision(1, 8, bpf.Translated), decision(0, 7, bpf.Translated),
			decision(3, 7, bpf.Denied), decision(1, 7, bpf.Denied),
		} {
			f.in <- d
		}
		synctest.Wait()
		for _, tt := range []struct {
			w    *Watcher
			want []string
		}{
			{web, []string{"g1 v7 translated", "g1 v7 denied"}},
			{denied, []string{"g3/x.scope v7 denied", "g1 v7 denied"}},
			{split, []string{"g3/x.scope v7 denied"}},
			{parent, []string{"g3/x.scope v7 denied"}},
			{host, []string{"host v7 translated"}},
		} {
			b, err := tt.w.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, names(b.Events)); diff != "" {
				t.Errorf("%+v (-want +got):\n%s", tt.w.query, diff)
			}
			tt.w.Close()
		}
		if f.wants() != nil || f.polls {
			t.Error("wanted with nobody left")
		}
		if f.unheard {
			t.Error("told while the reader waited to be woken up")
		}
	})
}

// What a watcher wants is asked for again and again, so that the lease lasts.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		o := running(t, f, Options{})
		synctest.Wait()
		w, _, err := o.Watch(Query{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		wishes := func() int { f.mu.Lock(); defer f.mu.Unlock(); return f.wishes }
		before := wishes()
		time.Sleep(10 * bpf.WatchLease)
		synctest.Wait()
		if n := wishes() - before; n < 20 {
			t.Errorf("asked %d times in ten leases", n)
		}
	})
}

// A watcher that does not read holds up nobody and holds no more than its
// buffer; what it missed it is told, to the last one.
func TestSlowWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		o := running(t, f, Options{})
		synctest.Wait()
		slow, _, err := o.Watch(Query{})
		if err != nil {
			t.Fatal(err)
		}
		defer slow.Close()
		const events = 3*buffered + 17
		for range events {
			f.in <- decision(1, 7, bpf.Translated)
		}
		synctest.Wait()
		b, err := slow.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Events) != buffered {
			t.Errorf("%d events were kept, want %d", len(b.Events), buffered)
		}
		if diff := cmp.Diff([]Lost{{Where: LostWatcher, Count: events - buffered}}, b.Lost); diff != "" {
			t.Errorf("lost (-want +got):\n%s", diff)
		}
		f.in <- decision(2, 7, bpf.Translated)
		if b, err = slow.Next(t.Context()); err != nil || len(b.Events) != 1 || len(b.Lost) != 0 || b.Events[0].Group != "g2" {
			t.Errorf("after that: %+v, %v", b, err)
		}
	})
}

// What never left the kernel is told, where it is missing and of whom.
func TestLostInKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.lost = 100 // before anybody asked
		f.suppressed[1] = 50
		var missed []Lost
		var mu sync.Mutex
		o := running(t, f, Options{Missed: func(l Lost) { mu.Lock(); missed = append(missed, l); mu.Unlock() }})
		synctest.Wait()
		all, _, err := o.Watch(Query{})
		if err != nil {
			t.Fatal(err)
		}
		defer all.Close()
		other, _, err := o.Watch(Query{Group: "g2"})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		f.in <- decision(1, 7, bpf.Rejected)
		time.Sleep(renewal + time.Millisecond) // the budget is looked at before it is spent
		f.mu.Lock()
		f.lost, f.suppressed[1] = 103, 57
		f.mu.Unlock()
		time.Sleep(2 * renewal)
		synctest.Wait()
		want := []Lost{{Where: LostKernel, Count: 3}, {Where: LostBudget, Group: "g1", Count: 7}}
		b, err := all.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, b.Lost); diff != "" {
			t.Errorf("lost (-want +got):\n%s", diff)
		}
		if b, err = other.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[:1], b.Lost); diff != "" {
			t.Errorf("lost of another group (-want +got):\n%s", diff)
		}
		mu.Lock()
		defer mu.Unlock()
		if diff := cmp.Diff(want, missed); diff != "" {
			t.Errorf("missed (-want +got):\n%s", diff)
		}
	})
}

// The store holds the newest; refusals are not pushed out by the rest.
func TestStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var refused int
		o := running(t, f, Options{Refused: func(*Event) { refused++ }})
		for i := range 10 {
			d := decision(1, uint32(i), bpf.Rejected)
			d.Time = time.Duration(i) * time.Second
			f.in <- d
		}
		for i := range storedEvents + 100 {
			d := decision(2, 7, bpf.Translated)
			d.Time = time.Minute + time.Duration(i)
			f.in <- d
		}
		f.in <- decision(1, 10, bpf.Audited)
		synctest.Wait()
		all := o.Stored(Query{Last: -1})
		if len(all) != storedEvents+11 || refused != 11 {
			t.Errorf("%d stored, %d refused", len(all), refused)
		}
		for i := 1; i < len(all); i++ {
			if all[i].Seq <= all[i-1].Seq {
				t.Fatal("out of order")
			}
		}
		last := names(o.Stored(Query{Last: 2}))
		if diff := cmp.Diff([]string{"g2 v7 translated", "g1 v10 audited"}, last); diff != "" {
			t.Errorf("the last two (-want +got):\n%s", diff)
		}
		since := names(o.Stored(Query{Last: -1, Group: "g1", Since: time.Unix(8, 0)}))
		if diff := cmp.Diff([]string{"g1 v8 rejected", "g1 v9 rejected"}, since); diff != "" {
			t.Errorf("since (-want +got):\n%s", diff)
		}
		if len(o.Stored(Query{})) != 0 {
			t.Error("none were wanted")
		}
	})
}

// One user cannot take the watchers of all, and all of them cannot take root's.
func TestWatchersByUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := running(t, newFake(), Options{})
		var of []*Watcher
		watch := func(uid uint32, refused string) {
			t.Helper()
			w, _, err := o.Watch(Query{UID: uid})
			if refused == "" {
				if err != nil {
					t.Fatalf("user %d: %v", uid, err)
				}
				of = append(of, w)
			} else if !errors.Is(err, ErrTooMany) || !strings.Contains(err.Error(), refused) {
				t.Errorf("user %d: %v, want %q", uid, err, refused)
			}
		}
		for uid := uint32(1001); uid <= 1003; uid++ {
			for range maxUser {
				watch(uid, "")
			}
			watch(uid, fmt.Sprintf("%d of user %d, and one user may have no more", maxUser, uid))
		}
		watch(1004, fmt.Sprintf("%d of users but root, who may have no more together", maxOthers))
		for range maxWatchers - maxOthers {
			watch(0, "")
		}
		watch(0, fmt.Sprintf("%d, and there may be no more", maxWatchers))

		of[0].Close() // of 1001
		watch(1001, "")
		watch(1001, "one user may have no more")
		of[1].Close()
		watch(1004, "")
		of[maxUser].Close() // of 1002: root may have what others leave
		watch(0, "")
		watch(1002, "there may be no more")
		for _, w := range of {
			w.Close()
		}
	})
}

// There are so many watchers and no more; when it ends they hear of it.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		o := running(t, f, Options{})
		var all []*Watcher
		for range maxWatchers {
			w, _, err := o.Watch(Query{})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, w)
		}
		if _, _, err := o.Watch(Query{}); !errors.Is(err, ErrTooMany) {
			t.Errorf("one more: %v", err)
		}
		f.in <- decision(1, 7, bpf.Translated)
		synctest.Wait()
		f.Close()
		for _, w := range all {
			if b, err := w.Next(t.Context()); err != nil || len(b.Events) != 1 {
				t.Errorf("what had come: %+v, %v", b, err)
			}
			if _, err := w.Next(t.Context()); err != ErrEnded {
				t.Errorf("Next after the end: %v", err)
			}
			w.Close()
		}
	})
}

// What the programs still tell when it has been ended, and is not closed yet, is
// stored under its names.
func TestToldAfterEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		o := running(t, f, Options{})
		synctest.Wait()
		o.End()
		f.in <- decision(1, 7, bpf.Translated)
		synctest.Wait()
		if got := o.Stored(Query{Last: -1}); len(got) != 1 || got[0].Group != "g1" || got[0].VIP != "v7" {
			t.Errorf("stored %+v", got)
		}
	})
}

// An answer is named by the call that it belongs to.
func TestConnectedIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		o := running(t, f, Options{Names: func(e *Event) { e.Unit = fmt.Sprintf("u%d.service", e.TGID) }})
		w, _, err := o.Watch(Query{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		synctest.Wait()
		if !f.timed {
			t.Error("connects are not timed for a watcher")
		}
		call := func(socket uint64, told bpf.Told, pid uint32) bpf.Decision {
			d := decision(1, 7, told)
			d.Proto, d.Socket, d.TGID = bpf.TCP, socket, pid
			return d
		}
		f.in <- call(1, bpf.Translated, 41)
		f.in <- call(2, bpf.Translated, 42)
		f.in <- call(1, bpf.Connected, 0)
		f.in <- call(3, bpf.Connected, 0) // nobody knows whose
		answers := func() (units []string) {
			synctest.Wait()
			for _, e := range o.Stored(Query{Last: -1, Told: []bpf.Told{bpf.Connected}}) {
				units = append(units, e.Unit)
			}
			return units
		}
		if diff := cmp.Diff([]string{"u41.service", ""}, answers()); diff != "" {
			t.Errorf("units (-want +got):\n%s", diff)
		}
		for i := range remembered {
			f.in <- call(100+uint64(i), bpf.Translated, 43)
			if i%1000 == 0 {
				synctest.Wait()
				if _, err := w.Next(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		f.in <- call(2, bpf.Connected, 0) // forgotten
		if diff := cmp.Diff([]string{""}, answers()); diff != "" {
			t.Errorf("units of what was forgotten (-want +got):\n%s", diff)
		}
		if n := len(o.calls.bySocket); n > remembered {
			t.Errorf("%d calls are remembered", n)
		}
	})
}

// Somebody who asks has connects timed for a while.
func TestAskTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		o := running(t, f, Options{})
		synctest.Wait()
		timed := func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.timed }
		if timed() || o.Timed() {
			t.Error("timed though nobody asked")
		}
		o.AskTimes()
		if !timed() || !o.Timed() {
			t.Error("not timed though somebody asked")
		}
		time.Sleep(curious + 2*renewal)
		synctest.Wait()
		if timed() || o.Timed() {
			t.Error("still timed")
		}
	})
}
