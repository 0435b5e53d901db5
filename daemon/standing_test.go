package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/discover"
	"github.com/slicelb/slicelb/internal/fdstore"
	"github.com/slicelb/slicelb/internal/fdstore/fdstoretest"
	"github.com/slicelb/slicelb/lb"
)

// ages is for how long each backend has stood as it does, as a listing has it.
func (d *daemon) ages() string {
	c := &counted{source: d.running, orders: d.backends.operator, back: d.backends.back, now: time.Now()}
	var out []string
	for i := range d.running.cfg.VIPs {
		v := c.vipOf(&d.running.cfg.VIPs[i])
		for _, b := range v.All() {
			age := "?"
			if !b.Since.IsZero() {
				age = fmt.Sprint(int(time.Since(b.Since).Round(time.Minute).Minutes()))
			}
			out = append(out, strings.TrimPrefix(b.Group+" ", " ")+b.Address[:strings.LastIndex(b.Address, ":")]+"="+age)
		}
	}
	return strings.Join(out, ", ")
}

// pass has all of it a while longer ago.
func (s standing) pass(d time.Duration) {
	earlier := func(t time.Time) time.Time {
		if t.IsZero() {
			return t
		}
		return t.Add(-d)
	}
	for _, st := range s {
		st.since = earlier(st.since)
		for l, since := range st.other {
			st.other[l] = earlier(since)
		}
	}
}

// Since when a backend stands as it does is known over reloads and restarts, whatever
// becomes of the files, and where it is not known that is said.
func TestStanding(t *testing.T) {
	path := filepath.Join(t.TempDir(), "slicelb.toml")
	vip := func(name string, port int, rest string, backends ...string) string {
		return fmt.Sprintf("[vip.%s]\nfrontends = [\"10.96.0.10:%d\"]\nbackend = [ %s ]\n%s", name, port, strings.Join(backends, ", "), rest)
	}
	b := func(addr string, weight int) string {
		return fmt.Sprintf("{ address = \"%s:80\", weight = %d }", addr, weight)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("[group.web]\nslices = [\"web.slice\"]\n"+text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var d *daemon
	start := func(handed ...fdstore.FD) {
		t.Helper()
		next := bare(t, fdstoretest.New(t), nil)
		next.configPath, next.handed = path, handed
		if err := next.start(); err != nil {
			t.Fatal(err)
		}
		if d != nil && d.state != nil {
			d.state.Close()
		}
		d = next
	}
	restart := func() {
		t.Helper()
		fd, err := unix.FcntlInt(d.state.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		start(fdstore.FD{Name: d.good.name(), FD: fd})
	}
	is := func(what, want string) {
		t.Helper()
		if diff := cmp.Diff(strings.Split(want, ", "), strings.Split(d.ages(), ", ")); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", what, diff)
		}
		d.running.stands.pass(time.Minute)
		if err := d.remember(); err != nil {
			t.Fatal(err)
		}
	}
	view := func(backends ...string) string {
		return "for.web.backend = [ " + strings.Join(backends, ", ") + " ]\n"
	}

	write(vip("a", 1, view(b("1.0.0.3", 1)), b("1.0.0.1", 1), b("1.0.0.2", 0)))
	start()
	is("at first", "1.0.0.1=0, 1.0.0.2=0, web 1.0.0.3=0")

	write(vip("a", 1, view(b("1.0.0.1", 1), b("1.0.0.3", 4)), b("1.0.0.1", 2), b("1.0.0.2", 1), b("1.0.0.4", 1)) + vip("b", 2, "", b("1.0.0.1", 1)))
	src, err := loadSource(path)
	if err != nil {
		t.Fatal(err)
	}
	src.after(d.running, d.inherited)
	d.use(src)
	if err := d.remember(); err != nil {
		t.Fatal(err)
	}
	is("reloaded", "1.0.0.1=1, 1.0.0.2=0, 1.0.0.4=0, web 1.0.0.1=0, web 1.0.0.3=1, 1.0.0.1=0")
	restart()
	is("restarted", "1.0.0.1=2, 1.0.0.2=1, 1.0.0.4=1, web 1.0.0.1=1, web 1.0.0.3=2, 1.0.0.1=1")

	write("nonsense\n")
	restart()
	is("restarted with broken files", "1.0.0.1=3, 1.0.0.2=2, 1.0.0.4=2, web 1.0.0.1=2, web 1.0.0.3=3, 1.0.0.1=2")

	write(vip("a", 1, "", b("1.0.0.4", 1), b("1.0.0.5", 1)) + vip("b", 2, "health.type = \"tcp\"\n", b("1.0.0.1", 1)))
	restart()
	is("restarted with other files", "1.0.0.4=3, 1.0.0.5=0, 1.0.0.1=0")

	// A process that told nothing of it, as an older version, and one that told nothing.
	d.running.stands = nil
	if err := d.remember(); err != nil {
		t.Fatal(err)
	}
	write(vip("a", 1, "", b("1.0.0.4", 1), b("1.0.0.6", 1)))
	restart()
	is("not told", "1.0.0.4=?, 1.0.0.6=0")
	start(fdstoretest.Memfd(t, "slb1-x-map-cells"))
	is("nothing told", "1.0.0.4=?, 1.0.0.6=?")
	d.state.Close()
}

// A backend that an operator makes ready again stands so since then, in the next process
// too; one that is a unit since that does.
func TestStandingAfterOrder(t *testing.T) {
	now := time.Now()
	d := &daemon{backends: newBackendStates(), running: parse(t, oneVIP+"[[vip.db.backend]]\nunit = \"web@*.service\"\naddress = \"127.0.0.1:%i\"\n")}
	d.running = d.running.with(unitsAre(discover.Unit{Name: "web@1.service", State: discover.Active, Since: now.Add(-5 * time.Minute)}))
	d.running.stands = standing{"db": {since: now.Add(-9 * time.Minute)}}
	is := func(what, want string) {
		t.Helper()
		if got := d.ages(); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	is("at first", "192.0.2.1=9, 127.0.0.1=5")
	one, two := endpointOf("db", "192.0.2.1:80"), endpointOf("db", "127.0.0.1:1")
	before := map[lb.Endpoint]order{one: {State: api.OrderDrain, Since: now.Add(-7 * time.Minute)}}
	d.backends.operator = before
	is("drained", "192.0.2.1=7, 127.0.0.1=5")
	d.backends.operator = map[lb.Endpoint]order{}
	d.backends.returned([]lb.Endpoint{one, two}, before, now.Add(-2*time.Minute))
	is("ready again", "192.0.2.1=2, 127.0.0.1=5")

	if err := d.backends.seal(); err != nil {
		t.Fatal(err)
	}
	defer d.backends.stateFile.Close()
	next := newBackendStates()
	if err := next.restore(d.backends.wanted()); err != nil {
		t.Fatal(err)
	}
	d.backends = next
	is("restarted", "192.0.2.1=2, 127.0.0.1=5")
	if next.forget(d.running); len(next.back) != 1 {
		t.Errorf("forgotten, and it is there: %v", next.back)
	}
	if next.forget(parse(t, "# none\n")); len(next.back) != 0 || !next.unsaved {
		t.Errorf("kept, and it is gone: %v", next.back)
	}
}
