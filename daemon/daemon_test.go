package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/lb/lbtest"
	"github.com/slicelb/slicelb/unitwatch"
)

// memoryPath is a data plane in memory.
type memoryPath struct {
	live map[uint32]uint64 // by backend
	*lbtest.Maps
	fail     atomic.Pointer[error] // of Apply
	before   atomic.Pointer[func(bpf.Write)]
	attached atomic.Int32
	severed  atomic.Bool
	stuck    atomic.Bool // nothing can be attached
	stats    atomic.Pointer[bpf.Stats]
	closed   chan struct{}
	once     sync.Once
	fds      []bpf.NamedFD
	told     memoryDecisions
	forgot   atomic.Int64 // ForgetSeen
}

func newMemoryPath(limits bpf.Limits) *memoryPath {
	return &memoryPath{Maps: lbtest.New(limits), closed: make(chan struct{}), told: newMemoryDecisions()}
}

func (m *memoryPath) Apply(w bpf.Write) error {
	if err := m.fail.Load(); err != nil {
		return *err
	}
	if before := m.before.Load(); before != nil {
		(*before)(w)
	}
	return m.Maps.Apply(w)
}

func (m *memoryPath) Attach(*os.File) error {
	if m.stuck.Load() {
		return errors.New("no hook may be attached by this test")
	}
	m.attached.Add(1)
	m.severed.Store(false)
	return nil
}

func (m *memoryPath) Check() error {
	if m.severed.Load() {
		return &bpf.DetachedError{Hook: "connect4", Reason: "severed by a test"}
	}
	return nil
}

func (m *memoryPath) Want(hooks ...string)                  { m.told.hooks.Store(&hooks) }
func (m *memoryPath) SetTraits(map[string]bpf.Traits) error { return nil }
func (m *memoryPath) Gone() <-chan struct{}                 { return nil }
func (m *memoryPath) Sweep() (bpf.Swept, error)             { return bpf.Swept{}, nil }
func (m *memoryPath) Failures() (failures, error)           { return noFailures{m}, nil }

// noFailures waits as long as the data plane is open.
type noFailures struct{ *memoryPath }

func (n noFailures) Read() (bpf.Failure, error) {
	<-n.closed
	return bpf.Failure{}, io.EOF
}

func (m *memoryPath) FDs() []bpf.NamedFD    { return m.fds }
func (m *memoryPath) Hints() (hints, error) { return m, nil }
func (m *memoryPath) Read() (bpf.Event, error) {
	<-m.closed
	return bpf.Event{}, io.EOF
}
func (m *memoryPath) Counters() (*bpf.CounterSnapshot, error) {
	return &bpf.CounterSnapshot{Live: m.live}, nil
}
func (m *memoryPath) Recount() (int, error)           { return 0, nil }
func (m *memoryPath) LiveOf(i uint32) (uint64, error) { return m.live[i], nil }
func (m *memoryPath) Stats() (bpf.Stats, error) {
	if st := m.stats.Load(); st != nil {
		return *st, nil
	}
	return bpf.Stats{}, nil
}
func (m *memoryPath) Missing() []bpf.Feature      { return nil }
func (m *memoryPath) Close() error                { m.once.Do(func() { close(m.closed) }); return nil }
func (m *memoryPath) RuleHits() ([]uint64, error) { return nil, nil }
func (m *memoryPath) Seen() ([]bpf.Seen, error)   { return nil, nil }
func (m *memoryPath) ForgetSeen() error           { m.forgot.Add(1); return nil }

// process is a daemon in this process, with a data plane in memory.
type process struct {
	t      *testing.T
	dp     *memoryPath
	opens  int
	opened chan struct{} // closed when the data plane was opened
	client *api.Client
	config string
	out    *syncBuffer
	hup    chan os.Signal
	stop   func()
	ended  chan error
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func start(t *testing.T, toml string, dp *memoryPath, environment map[string]string) *process {
	t.Helper()
	return startIn(t, kerneltest.NewCgroup(t).Path, toml, dp, environment)
}

func startIn(t *testing.T, root, toml string, dp *memoryPath, environment map[string]string) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{
		t: t, dp: dp, config: filepath.Join(dir, "slicelb.toml"), out: &syncBuffer{},
		hup: make(chan os.Signal, 1), ended: make(chan error, 1), opened: make(chan struct{}),
		client: api.NewClient(filepath.Join(dir, "api.sock")),
	}
	p.configure(toml)
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	go func() {
		p.ended <- Run(ctx, Options{
			Config: p.config, CgroupRoot: root, Socket: filepath.Join(dir, "api.sock"), Version: "1.2.3",
			Log: p.out, Lookup: fdstoretest.LookupIn(environment), Unset: func(string) error { return nil }, Hangup: p.hup,
			open: func(bpf.Options, []bpf.NamedFD) (opened, error) {
				if p.opens++; p.opens == 1 {
					close(p.opened)
				}
				return opened{dataPath: dp}, nil
			},
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-p.ended; err != nil {
			t.Errorf("it ended: %v", err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", p.out)
		}
	})
	return p
}

func (p *process) configure(toml string) {
	p.t.Helper()
	if err := os.WriteFile(p.config, []byte(toml), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// await polls the daemon's status until ok holds.
func (p *process) await(what string, ok func(*api.Status) bool) *api.Status {
	p.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for tick := time.Tick(5 * time.Millisecond); ; <-tick {
		s, err := p.client.Status(p.t.Context())
		if err == nil && ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("never: %s; %+v, %v\n%s", what, s, err, p.out)
		}
	}
}

func well(s *api.Status) bool { return s.State == api.OK && s.Tracking.Complete }

const oneVIP = "[vip.db]\nfrontends = [\"10.96.0.10:80\"]\n[[vip.db.backend]]\naddress = \"192.0.2.1:80\"\n"

func (p *process) dump() string {
	p.t.Helper()
	d, err := p.client.Dump(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.Join(d.Lines, "\n")
}

// A configuration without a VIP loads and attaches nothing; the first VIP does.
func TestNothingBeforeAVIP(t *testing.T) {
	p := start(t, "[group.web]\nslices = [\"web.slice\"]\n", newMemoryPath(lbtest.DefaultLimits), nil)
	s := p.await("well", well)
	if s.DataPlane.Attached || p.opens != 0 || p.dump() != "" {
		t.Errorf("attached: %+v, opened %d times", s.DataPlane, p.opens)
	}
	p.configure(oneVIP)
	r, err := p.client.Reload(t.Context(), 10*time.Second)
	if err != nil || r.VIPs != 1 || r.Writes == 0 {
		t.Fatalf("reload: %+v, %v", r, err)
	}
	s = p.await("well", well)
	if !s.DataPlane.Attached || p.dp.attached.Load() != 1 {
		t.Errorf("not attached: %+v", s.DataPlane)
	}
}

// What does not fit is refused whole, and what ran before runs on. fault F14
func TestReloadThatDoesNotFit(t *testing.T) {
	limits := lbtest.DefaultLimits
	limits.Frontends = 8
	p := start(t, oneVIP, newMemoryPath(limits), nil)
	p.await("well", well)
	before := p.dump()
	var many strings.Builder
	many.WriteString("[vip.many]\nfrontends = [")
	for i := range 20 {
		many.WriteString("\"10.96.1." + strconv.Itoa(i) + ":80\", ")
	}
	many.WriteString("]\n")
	p.configure(many.String())
	_, err := p.client.Reload(t.Context(), 10*time.Second)
	var e *api.Error
	if !errors.As(err, &e) || e.Code != api.BadConfig || !strings.Contains(e.Text, "unchanged") {
		t.Fatalf("reload: %v", err)
	}
	if after := p.dump(); after != before {
		t.Errorf("the maps changed from\n%s\nto\n%s", before, after)
	}
	s := p.await("degraded", func(s *api.Status) bool { return s.State == api.Degraded })
	if s.Config.LastError == "" || len(s.VIPs) != 1 || s.VIPs[0].Name != "db" {
		t.Errorf("status: %+v", s)
	}
	// And with the next good one all is well again.
	p.configure(oneVIP)
	if _, err := p.client.Reload(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	p.await("well", well)
}

// Writes that fail are tried again; status says so meanwhile.
func TestWritesThatFail(t *testing.T) {
	dp := newMemoryPath(lbtest.DefaultLimits)
	broken := errors.New("broken by a test")
	dp.fail.Store(&broken)
	p := start(t, oneVIP, dp, nil)
	s := p.await("degraded", func(s *api.Status) bool { return strings.Contains(strings.Join(s.Problems, "\n"), broken.Error()) })
	if s.DataPlane.Attached {
		t.Error("attached with half a map")
	}
	dp.fail.Store(nil)
	p.await("well", well)

	// A reload that fails half way is taken back.
	p.configure(strings.ReplaceAll(oneVIP, "192.0.2.1", "192.0.2.2"))
	dp.fail.Store(&broken)
	_, err := p.client.Reload(t.Context(), 10*time.Second)
	if e := (*api.Error)(nil); !errors.As(err, &e) || e.Code != api.Failed {
		t.Fatalf("reload: %v", err) // the files are good
	}
	dp.fail.Store(nil)
	p.await("the old state", func(s *api.Status) bool {
		return strings.Contains(p.dump(), "192.0.2.1:80") && !strings.Contains(p.dump(), "192.0.2.2:80 gen")
	})
	if _, err := p.client.Reload(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	p.await("well", well)
}

// A link that somebody severed is noticed and made again. fault F13
func TestSeveredLink(t *testing.T) {
	p := start(t, oneVIP, newMemoryPath(lbtest.DefaultLimits), nil)
	p.await("well", well)
	begin := time.Now()
	p.dp.severed.Store(true)
	p.await("attached again", func(*api.Status) bool { return p.dp.attached.Load() == 2 })
	if took := time.Since(begin); took > 10*tick {
		t.Errorf("after %v", took)
	}
	if !strings.Contains(p.out.String(), "severed by a test") {
		t.Error("the log does not say it")
	}
}

// A link that cannot be made again is a problem for as long as that is so, whatever
// else goes well meanwhile. edge D42
func TestLinkStaysSevered(t *testing.T) {
	p := start(t, oneVIP, newMemoryPath(lbtest.DefaultLimits), nil)
	p.await("well", well)
	p.dp.stuck.Store(true)
	p.dp.severed.Store(true)
	bad := func(s *api.Status) bool {
		return s.State == api.Degraded && strings.Contains(strings.Join(s.Problems, "\n"), "severed by a test")
	}
	p.await("degraded", bad)
	if _, err := p.client.Reload(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if s, err := p.client.Status(t.Context()); err != nil || !bad(s) {
		t.Errorf("after a reload: %+v, %v", s, err)
	}
	if n := strings.Count(p.out.String(), "attaching again"); n != 1 {
		t.Errorf("told %d times", n)
	}
	p.dp.stuck.Store(false)
	p.await("well again", well)
}

// What the service manager is told, in order.
func TestNotifications(t *testing.T) {
	m := fdstoretest.New(t)
	environment := m.Environment()
	environment["WATCHDOG_USEC"] = "100000"
	p := start(t, oneVIP, newMemoryPath(lbtest.DefaultLimits), environment)
	p.await("attached", func(s *api.Status) bool { return s.DataPlane.Attached })
	p.hup <- os.Interrupt // which signal it is does not matter to the loop
	has := func(want string) func(*api.Status) bool {
		return func(*api.Status) bool { return strings.Contains(strings.Join(m.Said(), "\n"), want) }
	}
	p.await("a watchdog's ping", has("WATCHDOG=1"))
	p.await("a new state", has("FDSTOREREMOVE=1 FDNAME=state-v1.1"))
	p.configure("nonsense = 1\n")
	if _, err := p.client.Reload(t.Context(), 10*time.Second); err == nil {
		t.Error("a bad reload succeeds")
	}
	p.stop()
	p.ended <- <-p.ended
	for deadline := time.Now().Add(20 * time.Second); !has("STOPPING=1")(nil) && time.Now().Before(deadline); {
		<-time.After(time.Millisecond) // the manager reads when it comes to it
	}
	var got []string
	for _, line := range m.Said() {
		first, rest, _ := strings.Cut(line, " ")
		switch {
		case first == "WATCHDOG=1", strings.HasPrefix(first, "STATUS="):
		case first == "RELOADING=1":
			if !strings.HasPrefix(rest, "MONOTONIC_USEC=") {
				t.Errorf("RELOADING without the time: %s", line)
			}
			got = append(got, first)
		case strings.HasPrefix(first, "FDSTORE"):
			got = append(got, first+" "+strings.Fields(rest)[0])
		default:
			got = append(got, first)
		}
	}
	want := []string{
		"EXTEND_TIMEOUT_USEC=60000000", "WATCHDOG_USEC=100000", // while programs are loaded
		"FDSTORE=1 FDNAME=state-v1.1", "BARRIER=1", "READY=1",
		"RELOADING=1", "FDSTORE=1 FDNAME=state-v1.2", "BARRIER=1", "FDSTOREREMOVE=1 FDNAME=state-v1.1", "BARRIER=1", "READY=1",
		"RELOADING=1", "READY=1", "STOPPING=1",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("said\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A broken configuration at the first start ends it, and opens nothing.
func TestFirstStart(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "slicelb.toml")
	if err := os.WriteFile(path, []byte("nonsense = 1\nmore = 2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), Options{
		Config: path, CgroupRoot: kerneltest.NewCgroup(t).Path, Socket: filepath.Join(dir, "api.sock"),
		Log: io.Discard, Lookup: fdstoretest.LookupIn(nil), Unset: func(string) error { return nil },
		open: func(bpf.Options, []bpf.NamedFD) (opened, error) { t.Error("opened"); return opened{}, io.EOF },
	})
	var bad *ConfigError
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "nonsense") || !strings.Contains(err.Error(), "more") {
		t.Errorf("%v", err)
	}
}

// bare is a daemon of which no task runs.
func bare(t testing.TB, m *fdstoretest.Manager, dp dataPath) *daemon {
	t.Helper()
	notify := fdstore.NewNotifier(fdstoretest.LookupIn(m.Environment()))
	d := &daemon{
		log: slog.New(slog.DiscardHandler), level: new(slog.LevelVar), started: time.Now(), notify: notify, kept: newKept(fdstore.New(notify, nil, m.Ask)),
		backends: newBackendStates(), hints: make(chan unitwatch.Hint, hintBuffer),
		opening: opening{passed: make(chan struct{})},
		open:    func(bpf.Options, []bpf.NamedFD) (opened, error) { return opened{dataPath: dp}, nil },
	}
	d.observer, d.refusals = d.newObserver()
	t.Cleanup(d.tasks.Wait) // t.Context has ended then
	return d
}

func sourceOf(t *testing.T, toml string) *source {
	t.Helper()
	cfg, err := config.Parse("test", []byte(toml))
	if err != nil {
		t.Fatal(err)
	}
	src, err := newSource(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// lazyPath has links once it is attached, and no hints at the first time.
type lazyPath struct {
	*memoryPath
	link  bpf.NamedFD
	asked int
}

func (l *lazyPath) FDs() []bpf.NamedFD {
	if l.attached.Load() == 0 {
		return nil
	}
	return []bpf.NamedFD{l.link}
}

func (l *lazyPath) Hints() (hints, error) {
	if l.asked++; l.asked == 1 {
		return nil, errors.New("no memory for a ring")
	}
	return l.memoryPath.Hints()
}

// A reload that meets a directory it cannot read attaches nothing. What is
// attached later, with a second try for the hints, is stored like the rest.
func TestAttachedLater(t *testing.T) {
	m := fdstoretest.New(t)
	fd := fdstoretest.Memfd(t, "link")
	dp := &lazyPath{memoryPath: newMemoryPath(lbtest.DefaultLimits), link: bpf.NamedFD{Name: fd.Name, FD: fd.FD}}
	d := bare(t, m, dp)
	ctx := t.Context()
	d.ready, d.running = true, sourceOf(t, oneVIP)
	d.snap = &unitwatch.Snapshot{Tree: d.running.tree}
	d.settle(ctx)
	d.keep(ctx, false)
	if d.publish(); d.attached || !slices.ContainsFunc(d.view.Load().problems, func(s string) bool { return strings.Contains(s, "attached") }) {
		t.Errorf("attached %t, problems %q", d.attached, d.view.Load().problems)
	}
	d.snap = &unitwatch.Snapshot{Tree: d.running.tree, Complete: true}
	d.settle(ctx)
	if d.applyErr == nil {
		t.Error("hints that cannot be read are no error")
	}
	d.settle(ctx)
	if d.applyErr != nil || !d.attached || dp.asked != 2 {
		t.Errorf("attached %t, asked for hints %d times: %v", d.attached, dp.asked, d.applyErr)
	}
	if got := m.Names(); !slices.Contains(got, "link") {
		t.Errorf("the store has %q", got)
	}
}

// What was handed over stays in the store until this process has something to put
// in its place: a configuration that this version cannot read, drains.
func TestStatesStayUntilReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "slicelb.toml")
	if err := os.WriteFile(path, []byte("nonsense = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	unreadable, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	before := newBackendStates()
	before.generation = 3
	before.operator[lb.Endpoint{VIP: "db", Addr: netip.MustParseAddrPort("192.0.2.1:80")}] = order{State: api.OrderDrain}
	if err := before.seal(); err != nil {
		t.Fatal(err)
	}
	defer before.stateFile.Close()
	drains, err := unix.FcntlInt(before.stateFile.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	m := fdstoretest.New(t)
	d := bare(t, m, nil)
	d.configPath, d.handed = path, []fdstore.FD{{Name: "state-v1.7", FD: unreadable}, {Name: "runtime-v1.4", FD: drains}}
	d.kept = newKept(fdstore.New(d.notify, d.handed, m.Ask))
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	stays := func(want ...string) {
		t.Helper()
		d.keep(t.Context(), true)
		got := m.Names()
		slices.Sort(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("the store has %q, want %q", got, want)
		}
	}
	stays("runtime-v1.4", "state-v1.7")
	d.publish()
	if p := strings.Join(d.view.Load().problems, "\n"); !strings.Contains(p, "the start at ") {
		t.Errorf("problems: %s", p)
	}
	if len(d.backends.operator) != 1 {
		t.Errorf("drains: %v", d.backends.operator)
	}

	d.use(sourceOf(t, oneVIP))
	if err := d.remember(); err != nil {
		t.Fatal(err)
	}
	defer d.state.Close()
	stays("runtime-v1.4", "state-v1.8")
	if err := d.backends.seal(); err != nil {
		t.Fatal(err)
	}
	defer d.backends.stateFile.Close()
	stays("runtime-v1.5", "state-v1.8")
	if len(d.heirless) > 0 {
		t.Errorf("still open: %v", d.heirless)
	}
}

// crowdedPath counts who reads the maps at once.
type crowdedPath struct {
	*memoryPath
	now, most atomic.Int32
}

func (c *crowdedPath) Dump() (*bpf.Dump, error) {
	c.most.Store(max(c.most.Load(), c.now.Add(1)))
	defer c.now.Add(-1)
	for range 100 {
		runtime.Gosched()
	}
	return c.memoryPath.Dump()
}

// However many ask, one at a time reads the maps: writes wait for one dump, not
// for all.
func TestOneDumpAtATime(t *testing.T) {
	dp := &crowdedPath{memoryPath: newMemoryPath(lbtest.DefaultLimits)}
	d := bare(t, fdstoretest.New(t), dp)
	d.dp, d.running, d.lockHeld = opened{dataPath: dp}, sourceOf(t, oneVIP), true
	d.publish()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			a := answers{d}
			if _, err := a.Dump(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := a.Status(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := dp.most.Load(); n != 1 {
		t.Errorf("%d at once", n)
	}
}

// What a caller gets at a VIP with a backend takes the maps, and what is known of
// the backend: one request does not wait for itself.
func TestExplainAnswers(t *testing.T) {
	p := start(t, oneVIP, newMemoryPath(lbtest.DefaultLimits), nil)
	p.await("well", well)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	x, err := p.client.Explain(ctx, api.Question{Address: "10.96.0.10:80", Cgroup: "/"})
	if err != nil {
		t.Fatal(err)
	}
	if x.VIP != "db" || len(x.Backends) != 1 {
		t.Errorf("%+v", x)
	}
	if _, err := p.client.Group(ctx, "host"); err == nil || !strings.Contains(err.Error(), "everybody that no group covers") {
		t.Errorf("the host's group: %v", err)
	}
}

const oneUnit = "[vip.db]\nfrontends = [\"10.96.0.10:80\"]\n[[vip.db.backend]]\nunit = \"db.service\"\naddress = \"192.0.2.1:80\"\n"

// A start loads the programs while it waits for others to say what is there.
// fault F11
func TestLoadsMeanwhile(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
	p := start(t, oneUnit, newMemoryPath(lbtest.DefaultLimits), nil)
	select {
	case <-p.opened:
	case <-time.After(unitWait - time.Second):
		t.Fatal("not loaded while systemd is waited for")
	}
	if s, err := p.client.Status(t.Context()); err == nil && s.DataPlane.Attached {
		t.Error("attached without having heard of the units")
	}
	p.await("attached all the same", func(s *api.Status) bool { return s.DataPlane.Attached })
}

// What was said while the programs loaded waits to be heard: to load them may take
// longer than anybody waits for it.
func TestLoadsSlowly(t *testing.T) {
	d := bare(t, fdstoretest.New(t), newMemoryPath(lbtest.DefaultLimits))
	d.running = sourceOf(t, oneUnit)
	d.snap = &unitwatch.Snapshot{Tree: d.running.tree, Complete: true}
	ctx := t.Context()
	d.listening = time.Now()
	d.started = d.listening.Add(-2 * unitWait)
	if d.settle(ctx); d.ready {
		t.Error("ready without having heard of the units")
	}
	d.listening = d.started
	if d.settle(ctx); !d.ready {
		t.Errorf("units are waited for for ever: %v", d.applyErr)
	}
}
