package unitwatch

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// privateBus is a dbus-daemon of the test's own, on which everybody may do
// everything.
type privateBus struct {
	t   testing.TB
	dir string
	cmd *exec.Cmd
}

func newPrivateBus(t testing.TB) *privateBus {
	t.Helper()
	b := &privateBus{t: t, dir: t.TempDir()}
	t.Cleanup(b.stop)
	return b
}

func (b *privateBus) socket() string { return filepath.Join(b.dir, "bus") }

func (b *privateBus) dial(ctx context.Context) (io.ReadWriteCloser, error) {
	return dialAddresses(ctx, "unix:path="+b.socket())
}

func (b *privateBus) start() {
	b.t.Helper()
	path, err := exec.LookPath("dbus-daemon")
	if err != nil {
		unable(b.t, err)
	}
	config := `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>custom</type><listen>unix:path=` + b.socket() + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`
	file := filepath.Join(b.dir, "bus.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		b.t.Fatal(err)
	}
	_ = os.Remove(b.socket())
	b.cmd = exec.Command(path, "--config-file="+file, "--nofork", "--nopidfile", "--nosyslog")
	b.cmd.Stderr = b.t.Output()
	b.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; <-time.After(time.Millisecond) {
		conn, err := net.Dial("unix", b.socket())
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatal(err)
		}
	}
}

func (b *privateBus) stop() {
	if b.cmd != nil {
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait() // killed: its status is known
		b.cmd = nil
	}
}

func (b *privateBus) connect() *dbus.Conn {
	b.t.Helper()
	conn, err := dbus.Connect("unix:path=" + b.socket())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return conn
}

// fakeSystemd is a manager with systemd's name on a private bus, whose units
// are directories of the test's own.
type fakeSystemd struct {
	t     testing.TB
	bus   *privateBus
	conn  *dbus.Conn
	root  string
	links string // to invocation ids

	mu        sync.Mutex
	units     map[string]string // name -> path of its directory
	described map[string]string // name -> description, where it is not "the unit NAME"
	states    map[string]string // name -> ActiveState, where it is not active, or a SubState "auto-restart…", and "+" and its job's type
	runs      map[string]byte   // name -> which run this is
	deaf      bool              // lists are refused
	ended     bool              // nothing is answered any more
	subscribe int
	lists     []time.Time
	asked     []string
}

func newFakeSystemd(t testing.TB) *fakeSystemd {
	t.Helper()
	f := &fakeSystemd{t: t, bus: newPrivateBus(t), root: ownCgroup(t), links: t.TempDir(), units: map[string]string{}}
	t.Cleanup(func() { // before the links are removed: a question may still be under way
		f.mu.Lock()
		defer f.mu.Unlock()
		f.ended = true
	})
	f.bus.start()
	f.claim()
	return f
}

// claim connects and takes systemd's name.
func (f *fakeSystemd) claim() {
	f.t.Helper()
	f.conn = f.bus.connect()
	methods := map[string]any{
		"Subscribe": func() *dbus.Error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.subscribe++
			return nil
		},
		"ListUnitsByPatterns": f.list,
	}
	if err := f.conn.ExportMethodTable(methods, systemdPath, managerIface); err != nil {
		f.t.Fatal(err)
	}
	get := map[string]any{"Get": f.get}
	if err := f.conn.ExportSubtreeMethodTable(get, systemdPath+"/unit", "org.freedesktop.DBus.Properties"); err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.conn.RequestName(systemdName, dbus.NameFlagDoNotQueue); err != nil {
		f.t.Fatal(err)
	}
}

type listedUnit struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	Job                                             uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

func (f *fakeSystemd) list(states, patterns []string) ([]listedUnit, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists = append(f.lists, time.Now())
	f.asked = append(f.asked, patterns...)
	if f.deaf || f.ended {
		return nil, dbus.MakeFailedError(errors.New("not now"))
	}
	found := []listedUnit{}
	for name := range f.units {
		active, sub := "active", "running"
		if s := f.states[name]; s != "" {
			active = s
		}
		active, job, _ := strings.Cut(active, "+")
		if rest, waits := strings.CutPrefix(active, "auto-restart"); waits {
			active, sub = "activating", "auto-restart"+rest
		}
		if slices.ContainsFunc(patterns, func(p string) bool { return MatchUnit(p, name) }) {
			if err := f.link(name); err != nil {
				return nil, dbus.MakeFailedError(err)
			}
			description := "the unit " + name
			if d, ok := f.described[name]; ok {
				description = d
			}
			found = append(found, listedUnit{
				Name: name, Description: description, Load: "loaded", Active: active, Sub: sub,
				Path: systemdPath + "/unit/" + dbus.ObjectPath(hex.EncodeToString([]byte(name))), JobType: job, JobPath: "/",
			})
		}
	}
	return found, nil
}

// get stands for systemd's answers about one unit, which load it. edge T15
func (f *fakeSystemd) get(iface, property string) (dbus.Variant, *dbus.Error) {
	f.t.Errorf("%s of a unit was asked for", property)
	return dbus.Variant{}, dbus.MakeFailedError(errors.New("not exported"))
}

// link writes a unit's invocation id, as systemd does before it runs anything.
func (f *fakeSystemd) link(unit string) error {
	id := []byte("0123456789abcdef")
	id[0] += f.runs[unit]
	at := filepath.Join(f.links, "invocation:"+unit)
	if err := os.Symlink(hex.EncodeToString(id), at+".new"); err != nil {
		return err
	}
	return os.Rename(at+".new", at)
}

// describe gives a unit a description of its own, before it is started.
func (f *fakeSystemd) describe(unit, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.described == nil {
		f.described = map[string]string{}
	}
	f.described[unit] = text
}

func (f *fakeSystemd) emit(member string, body ...any) {
	f.t.Helper()
	if err := f.conn.Emit(systemdPath, managerIface+"."+member, body...); err != nil {
		f.t.Fatal(err)
	}
}

const unitObject = systemdPath + "/unit/x"

// start does and says what systemd does and says.
func (f *fakeSystemd) start(unit, slice string) {
	f.t.Helper()
	f.emit("UnitNew", unit, unitObject)
	parent, err := anchor.FromUnit(slice)
	if err != nil {
		f.t.Fatal(err)
	}
	f.makeSlices(parent)
	dir := filepath.Join(f.root, parent, anchor.DirName(unit))
	mkdir(f.t, dir)
	f.mu.Lock()
	f.units[unit] = dir
	f.mu.Unlock()
	f.emit("JobRemoved", uint32(1), systemdPath+"/job/1", unit, "done")
}

func (f *fakeSystemd) makeSlices(path string) {
	f.t.Helper()
	at := f.root
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if name == "" {
			return
		}
		at = filepath.Join(at, name)
		err := os.Mkdir(at, 0o755)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			f.t.Fatal(err)
		}
		f.mu.Lock()
		f.units[anchor.UnitName(name)] = at
		f.mu.Unlock()
		if err == nil {
			f.emit("UnitNew", anchor.UnitName(name), unitObject)
			f.emit("JobRemoved", uint32(1), systemdPath+"/job/1", anchor.UnitName(name), "done")
		}
	}
}

func (f *fakeSystemd) startSlice(slice string) {
	f.t.Helper()
	path, err := anchor.FromUnit(slice)
	if err != nil {
		f.t.Fatal(err)
	}
	f.makeSlices(path)
}

func (f *fakeSystemd) stop(unit string) {
	f.t.Helper()
	f.mu.Lock()
	dir := f.units[unit]
	delete(f.units, unit)
	if f.runs == nil {
		f.runs = map[string]byte{}
	}
	f.runs[unit]++
	f.mu.Unlock()
	removeCgroups(f.t, dir)
	f.emit("JobRemoved", uint32(2), systemdPath+"/job/2", unit, "done")
	f.emit("UnitRemoved", unit, unitObject)
}

// reload removes every unit and makes it anew, in signals alone.
func (f *fakeSystemd) reload() {
	f.t.Helper()
	f.emit("Reloading", true)
	f.mu.Lock()
	units := map[string]string{}
	for u, d := range f.units {
		units[u] = d
	}
	f.mu.Unlock()
	for u := range units {
		f.emit("UnitRemoved", u, unitObject)
	}
	for u := range units {
		f.emit("UnitNew", u, unitObject)
	}
	f.emit("Reloading", false)
}

// turn has a unit be in another state, without a job.
func (f *fakeSystemd) turn(unit, active string) {
	f.t.Helper()
	f.mu.Lock()
	if f.states == nil {
		f.states = map[string]string{}
	}
	f.states[unit] = active
	f.mu.Unlock()
	f.changed(unit)
}

// changed says that a unit's properties have changed.
func (f *fakeSystemd) changed(unit string) {
	f.t.Helper()
	err := f.conn.Emit(objectOf(unit), propertiesIface+"."+propertiesChanged, unitIface, map[string]dbus.Variant{}, []string{"ActiveState"})
	if err != nil {
		f.t.Fatal(err)
	}
}

// objectOf is systemd's path for a unit.
func objectOf(unit string) dbus.ObjectPath {
	var b strings.Builder
	for _, c := range []byte(unit) {
		if c >= '0' && c <= '9' && b.Len() > 0 || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
		} else {
			b.WriteString("_" + hex.EncodeToString([]byte{c}))
		}
	}
	return unitPrefix + "/" + dbus.ObjectPath(b.String())
}

func (f *fakeSystemd) path(rel string) string { return filepath.Join(f.root, rel) }

func (f *fakeSystemd) options() Options {
	return Options{CgroupRoot: f.root, Dial: f.bus.dial, Runs: f.links, Resync: time.Hour}
}
