package daemon

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/lb/lbtest"
)

func TestTenths(t *testing.T) {
	begun := time.Unix(1000, 0)
	for _, tt := range []struct {
		name     string
		up, over time.Duration
		want     uint8
		next     time.Duration // after it came up
	}{
		{"no slow start", time.Second, 0, 0, 0},
		{"at once", 0, 10 * time.Second, 1, time.Second},
		{"a little later", 900 * time.Millisecond, 10 * time.Second, 1, time.Second},
		{"first step", time.Second, 10 * time.Second, 2, 2 * time.Second},
		{"last step", 9500 * time.Millisecond, 10 * time.Second, 10, 10 * time.Second},
		{"over", 10 * time.Second, 10 * time.Second, 0, 0},
		// The clock was moved back: not for ever. fault F19
		{"from the future", -87600 * time.Hour, 10 * time.Second, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, next := tenths(begun, tt.over, begun.Add(tt.up))
			want := time.Time{}
			if tt.next > 0 {
				want = begun.Add(tt.next)
			}
			if got != tt.want || !next.Equal(want) {
				t.Errorf("%d, next %v; want %d, %v", got, next, tt.want, want)
			}
		})
	}
}

func endpointOf(vip, addr string) lb.Endpoint {
	return lb.Endpoint{VIP: vip, Addr: netip.MustParseAddrPort(addr)}
}

// What a process leaves is what the next one knows.
func TestRuntimeState(t *testing.T) {
	since := time.Now().Add(-time.Hour)
	b := newBackendStates()
	b.operator[endpointOf("db", "192.0.2.1:80")] = order{State: api.OrderDrain, Since: since, UID: 1000, Unit: "web@1.service", Run: "abc", ByUnit: true}
	b.operator[endpointOf("db", "[2001:db8::1]:80")] = order{State: api.OrderMaint, Since: since}
	var files []fdstore.FD
	for range 2 {
		if err := b.seal(); err != nil {
			t.Fatal(err)
		}
		files = b.wanted()
	}
	if len(files) != 1 || files[0].Name != "runtime-v1.2" {
		t.Fatalf("%+v", files)
	}
	torn, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer torn.Close()
	c := newBackendStates()
	err = c.restore(append(files, fdstore.FD{Name: "runtime-v1.9", FD: int(torn.Fd())}, fdstore.FD{Name: "state-v1.77", FD: -1}))
	if err == nil || !strings.Contains(err.Error(), "runtime-v1.9") {
		t.Errorf("what is not sealed is taken: %v", err)
	}
	if diff := cmp.Diff(b.operator, c.operator, cmpopts.EquateApproxTime(time.Second)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if c.generation != 9 {
		t.Errorf("generation %d: the next name would be taken", c.generation)
	}
}

func parse(t *testing.T, toml string) *source {
	t.Helper()
	cfg, err := config.Parse("a.toml", []byte(toml))
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSource(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const checkedVIP = oneVIP + "[[vip.db.backend]]\naddress = \"192.0.2.2:80\"\n[vip.db.health]\n"

// What stands before the first check: by what is known, what ran, what is said.
func TestTargets(t *testing.T) {
	one, two := endpointOf("db", "192.0.2.1:80"), endpointOf("db", "192.0.2.2:80")
	src := parse(t, checkedVIP)
	states := func(list []health.Target) (out []string) {
		for _, tg := range list {
			out = append(out, fmt.Sprintf("%s %s", tg.Addr, tg.Assume))
		}
		return out
	}
	for _, tt := range []struct {
		name  string
		given func(*backendStates)
		src   *source
		ran   *source
		want  []string
	}{
		{"new", nil, src, nil, []string{"192.0.2.1:80 unchecked", "192.0.2.2:80 unchecked"}},
		{"initial up", nil, parse(t, checkedVIP+"initial = \"up\"\n"), nil, []string{"192.0.2.1:80 up", "192.0.2.2:80 up"}},
		{"in use without checks", nil, src, parse(t, oneVIP), []string{"192.0.2.1:80 up", "192.0.2.2:80 unchecked"}},
		{"known", func(b *backendStates) {
			b.known[one] = health.Verdict{State: health.Down}
			b.known[two] = health.Verdict{State: health.Up}
		}, src, nil, []string{"192.0.2.1:80 down", "192.0.2.2:80 up"}},
		{"maintenance", func(b *backendStates) { b.operator[one] = order{State: api.OrderMaint} }, src, nil, []string{"192.0.2.2:80 unchecked"}},
		{"drained", func(b *backendStates) { b.operator[one] = order{State: api.OrderDrain} }, src, nil, []string{"192.0.2.1:80 unchecked", "192.0.2.2:80 unchecked"}},
		{"no checks", nil, parse(t, oneVIP), nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBackendStates()
			if tt.given != nil {
				tt.given(b)
			}
			if diff := cmp.Diff(tt.want, states(b.targets(tt.src, tt.ran))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	// What was said of a backend that is gone is forgotten.
	b := newBackendStates()
	b.operator[two] = order{State: api.OrderDrain}
	if gone := b.forget(parse(t, oneVIP)); len(gone) != 1 || len(b.operator) != 0 {
		t.Errorf("%v, %v", gone, b.operator)
	}
}

// Certificates that cannot be read refuse a configuration.
func TestChecksOf(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{filepath.Join(dir, "none.pem"): "no such file", empty: "no certificate in it", dir: "no regular file"} {
		src := parse(t, checkedVIP+"type = \"https\"\nca_file = \""+file+"\"\n")
		if src.broken == nil || !strings.Contains(src.broken.Error(), want) {
			t.Errorf("%s: %v, want %q", file, src.broken, want)
		}
		if src.checks["db"] == nil || src.checks["db"].Broken == nil {
			t.Errorf("%s: it would be checked", file)
		}
	}
}

// backendAt listens until it is closed; it can be opened again.
type backendAt struct {
	t    *testing.T
	addr string
	ln   net.Listener
}

func listen(t *testing.T) *backendAt {
	t.Helper()
	b := &backendAt{t: t, addr: "127.0.0.1:0"}
	b.open()
	b.addr = b.ln.Addr().String()
	t.Cleanup(b.close)
	return b
}

func (b *backendAt) open() {
	b.t.Helper()
	ln, err := net.Listen("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.ln = ln
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(io.Discard, c); c.Close() }()
		}
	}()
}

func (b *backendAt) close() { b.ln.Close() }

// checkedTOML is a VIP with checks as fast as they may be.
func checkedTOML(extra string, backends ...*backendAt) string {
	var b strings.Builder
	b.WriteString("[vip.db]\nfrontends = [\"10.96.0.10:80\"]\n" + extra)
	for _, be := range backends {
		fmt.Fprintf(&b, "[[vip.db.backend]]\naddress = %q\n", be.addr)
	}
	b.WriteString("[vip.db.health]\ninterval = \"100ms\"\ntimeout = \"100ms\"\nfall = 2\nrise = 1\n")
	return b.String()
}

func (p *process) backends(what string, want ...string) *api.Status {
	p.t.Helper()
	var got []string
	return p.await(fmt.Sprintf("%s: %v", what, want), func(s *api.Status) bool {
		if !well(s) {
			return false
		}
		got = got[:0]
		for _, b := range s.VIPs[0].Backends {
			got = append(got, b.State)
		}
		return strings.Join(got, " ") == strings.Join(want, " ")
	})
}

func TestVerdictsReachTheMaps(t *testing.T) {
	one, two := listen(t), listen(t)
	p := start(t, checkedTOML("", one, two), newMemoryPath(lbtest.DefaultLimits), nil)
	s := p.backends("both answer", "active", "active")
	if b := s.VIPs[0].Backends[0]; b.Share != 0.5 || b.Check == nil || b.Check.State != "up" || b.Check.Count == 0 {
		t.Errorf("%+v", b)
	}
	one.close()
	s = p.backends("one is gone", "down", "active")
	if b := s.VIPs[0].Backends[0]; !strings.Contains(b.Reason, "refused") || b.Since.IsZero() || b.Share != 0 || !strings.Contains(b.Check.Error, "refused") {
		t.Errorf("%+v", b)
	}
	if !strings.Contains(strings.Join(s.Notes, "\n"), "vip.db: 1 backend failing health checks") {
		t.Errorf("notes: %q", s.Notes)
	}
	if b := s.VIPs[0].Backends[1]; b.Share != 1 {
		t.Errorf("%+v", b)
	}
	// All are: as when_down says. edge D37, fault F22
	two.close()
	s = p.backends("both are gone", "down", "down")
	if !strings.Contains(p.dump(), "reject") || s.VIPs[0].Up != 0 {
		t.Errorf("up %d, maps\n%s", s.VIPs[0].Up, p.dump())
	}
	one.open()
	p.backends("one is back", "active", "down")
	p.configure(checkedTOML("when_down = \"use-all\"\n", one, two))
	if _, err := p.client.Reload(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	p.backends("a reload leaves verdicts alone", "active", "down")
	one.close()
	s = p.backends("none is left: all", "active", "active")
	if b := s.VIPs[0].Backends[0]; !strings.Contains(b.Reason, "in use all the same, by when_down") {
		t.Errorf("%+v", b)
	}
	p.configure(strings.Replace(checkedTOML("", one, two), "fall", "panic_threshold = 50\nfall", 1))
	if _, err := p.client.Reload(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	p.await("half of them at most", func(s *api.Status) bool {
		var kept int
		for _, b := range s.VIPs[0].Backends {
			if strings.Contains(b.Reason, "in use all the same, by panic_threshold") {
				kept++
			}
		}
		return kept == 1
	})
}

// New backends take the place of old ones without a moment with none, and a
// reload says when they are there.
func TestReloadWaitsForFirstChecks(t *testing.T) {
	old, fresh := listen(t), listen(t)
	dp := newMemoryPath(lbtest.DefaultLimits)
	p := start(t, checkedTOML("", old), dp, nil)
	p.backends("the old one", "active")
	p.configure(checkedTOML("", fresh))
	if _, err := p.client.Reload(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	s, err := p.client.Status(t.Context())
	if err != nil || s.VIPs[0].Backends[0].State != "active" || s.VIPs[0].Up != 1 {
		t.Errorf("%+v, %v", s.VIPs, err)
	}
	// One that does not answer holds a reload up for its timeout only.
	gone := listen(t)
	gone.close()
	p.configure(checkedTOML("", fresh, gone))
	if _, err := p.client.Reload(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	p.backends("and the other is out", "active", "down")
}

func TestOrders(t *testing.T) {
	one, two := listen(t), listen(t)
	m := fdstoretest.New(t)
	p := start(t, checkedTOML("", one, two), newMemoryPath(lbtest.DefaultLimits), m.Environment())
	p.await("both answer", func(s *api.Status) bool { return len(s.VIPs) == 1 && s.VIPs[0].Up == 2 })
	set := func(addr, state string) *api.BackendChanged {
		t.Helper()
		out, err := p.client.SetBackend(t.Context(), api.BackendChange{VIP: "db", Address: addr, State: state})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	state := func() api.Backend {
		t.Helper()
		v, err := p.client.VIP(t.Context(), "db")
		if err != nil {
			t.Fatal(err)
		}
		return v.Backends[0]
	}
	// When it returns, no new connection goes there. edge D36
	if out := set(one.addr, "drain"); out.Before != "ready" || out.Writes == 0 || out.Forgotten != "" {
		t.Errorf("%+v", out)
	}
	if b := state(); b.Share != 0 || b.Order != "drain" || b.Reason != "drained by root" || b.Since.IsZero() || b.Check == nil {
		t.Errorf("%+v", b)
	}
	if out := set(one.addr, "drain"); out.Before != "drain" || out.Writes != 0 {
		t.Errorf("twice: %+v", out)
	}
	if text := strings.Join(m.Said(), "\n"); !strings.Contains(text, "FDNAME=runtime-v1.") {
		t.Errorf("it is not stored:\n%s", text)
	}
	set(one.addr, "maint")
	p.await("maintenance", func(*api.Status) bool { b := state(); return b.State == "down" && b.Check == nil })
	if b := state(); !strings.HasPrefix(b.Reason, "in maintenance") {
		t.Errorf("%+v", b)
	}
	// A reload leaves it so.
	if _, err := p.client.Reload(t.Context(), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if b := state(); b.Order != "maint" {
		t.Errorf("%+v", b)
	}
	set(one.addr, "ready")
	p.await("back after its first check", func(*api.Status) bool { b := state(); return b.State == "active" && b.Share == 0.5 })

	// The other out too: as when_down says. edge D37
	set(one.addr, "drain")
	set(two.addr, "drain")
	if v, err := p.client.VIP(t.Context(), "db"); err != nil || v.Up != 0 {
		t.Errorf("%+v, %v", v, err)
	}
	for _, bad := range []api.BackendChange{
		{VIP: "nope", Address: one.addr, State: "drain"}, {VIP: "db", Address: "192.0.2.99:1", State: "drain"},
		{VIP: "db", Address: "nonsense", State: "drain"}, {VIP: "db", Address: "192.0.2.1:080", State: "drain"}, {VIP: "db", Address: one.addr, State: "gone"},
	} {
		_, err := p.client.SetBackend(t.Context(), bad)
		var e *api.Error
		if !errors.As(err, &e) || e.Code != api.NotFound && e.Code != api.BadRequest {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// A thousand backends that come and go each second: the VIP keeps what
// panic_threshold promises, and the writes are in proportion to the changes.
func TestFlapping(t *testing.T) { // fault F21
	if testing.Short() {
		t.Skip("lasts seconds")
	}
	const ports, each = 10, 100
	var b strings.Builder
	b.WriteString("[vip.db]\nfrontends = [\"10.96.0.10:80\"]\n")
	flappers := make([]*backendAt, ports)
	for i := range flappers {
		f := &backendAt{t: t, addr: "0.0.0.0:0"}
		f.open()
		t.Cleanup(f.close)
		flappers[i] = f
		_, port, err := net.SplitHostPort(f.ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		f.addr = "0.0.0.0:" + port
		for n := range each {
			fmt.Fprintf(&b, "[[vip.db.backend]]\naddress = \"127.2.%d.%d:%s\"\n", i, n+1, port)
		}
	}
	b.WriteString("[vip.db.health]\ninterval = \"500ms\"\ntimeout = \"250ms\"\nfall = 1\nrise = 1\npanic_threshold = 50\n")
	dp := newMemoryPath(lbtest.DefaultLimits)
	p := start(t, b.String(), dp, nil)
	p.await("all are up", func(s *api.Status) bool { return len(s.VIPs) == 1 && s.VIPs[0].Up == ports*each })
	before := p.await("well", well).DataPlane.Writes
	begun, least := time.Now(), ports*each
	for turn := 0; time.Since(begun) < 6*time.Second; turn++ {
		// Each port is open for half a second and closed for half a second.
		if f := flappers[turn%ports]; turn/ports%2 == 0 {
			f.close()
		} else {
			f.open()
		}
		next := time.After(50 * time.Millisecond)
		s, err := p.client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		least = min(least, s.VIPs[0].Up)
		<-next
	}
	took := time.Since(begun).Seconds()
	s, err := p.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	writes := float64(s.DataPlane.Writes-before) / took
	t.Logf("%.0f writes a second for up to %d changes; %d backends in use at least", writes, 2*ports*each, least)
	if least < ports*each/2 {
		t.Errorf("%d of %d backends in use: less than panic_threshold promises", least, ports*each)
	}
	// Two changes a second of each backend; a word for each, and a few for each time
	// that the tables are changed at all.
	if most := 2*ports*each*2 + 100*8; writes > float64(most) {
		t.Errorf("%.0f writes a second, want at most %d", writes, most)
	}
	if writes == 0 {
		t.Error("nothing flapped")
	}
}
