package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/prose"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch"
)

// view is what the daemon knows, at one moment. It is immutable but for dp,
// which may be asked by anyone.
type view struct {
	source   *source
	snap     *unitwatch.Snapshot
	dp       dataPath
	level    int // of the cgroup root
	problems []string
	notes    []string
	status   api.Status // without VIPs, groups and counters
	orders   map[lb.Endpoint]order
	back     map[lb.Endpoint]time.Time
	ready    bool
	unread   bool           // see answers.readable
	part     *part          // nil: the kernel has room for all of source
	kernel   *lb.State      // the newest that the kernel took; nil: none of this process's
	rec      *lb.Reconciler // its Stats may be asked by anyone; nil while there is none
}

// publish makes what the loop knows now what the API answers.
func (d *daemon) publish() {
	v := &view{source: d.running, snap: d.snap, dp: d.dp.dataPath, level: d.rootLevel, orders: d.backends.operator, back: d.backends.back, ready: d.ready, unread: d.unread(), part: d.ranPart(), kernel: d.kernel, rec: d.rec}
	v.status = api.Status{
		Version: d.version, PID: os.Getpid(), Started: d.started,
		Config:    api.Config{Path: d.path(), Files: []string{}},
		HTTP:      d.web.address(),
		DataPlane: api.DataPlane{Attached: d.attached, CgroupRoot: d.root.Path, Namespaced: d.root.Namespaced, Adopted: d.dp.adopted, Before: d.before && !d.attached, Hooks: []string{}, Missing: []string{}, Held: d.held(), Writes: d.writes},
		Tracking:  api.Tracking{Mode: unitwatch.CgroupfsOnly.String(), Pending: []string{}, Lost: []string{}},
	}
	v.addConfig(d)
	v.addServing(d)
	v.addDataPlane(d)
	if d.root.Namespaced {
		v.note("%s is a part of the cgroup tree, at level %d: what runs outside it is not served", d.root.Path, d.rootLevel)
	}
	d.healthNotes(v.note)
	d.unitNotes(v.note)
	if d.snap != nil {
		v.addTracking(d.snap)
	}
	d.view.Store(v)
	if !v.unread && (d.ready || !d.dp.adopted) || d.applyErr != nil {
		d.opening.pass()
	}
}

// problem adds one. What it quotes, of a file or of others, stands behind a colon and a
// space: the page shows anybody what is before the first.
func (v *view) problem(format string, args ...any) {
	v.problems = append(v.problems, fmt.Sprintf(format, args...))
}

func (v *view) note(format string, args ...any) {
	v.notes = append(v.notes, fmt.Sprintf(format, args...))
}

// addConfig says which configuration runs, and what became of the newest reload.
func (v *view) addConfig(d *daemon) {
	c := &v.status.Config
	if r := d.running; r != nil {
		c.Files, c.Loaded, c.LastGood = r.cfg.Files, r.loaded, r.lastGood
		if r.lastGood {
			v.problem("%s; the last good configuration, of %s, is served: fix them and run slicelb reload", d.whyLastGood(), r.loaded.Format("2006-01-02 15:04:05"))
		}
		if r.emptied > 0 {
			v.note("%s at %s", emptiedText(r.emptied), r.loaded.Format("2006-01-02 15:04:05"))
		}
		for _, w := range r.warnings {
			v.note("%s", w)
		}
	} else {
		v.problem("there is no configuration that could be loaded; what the process before left is served: run slicelb check")
	}
	if d.reloadErr != nil {
		c.Failed, c.LastError = d.failed, d.reloadErr.Error()
		text := d.reloadErr.Error()
		if e := (*api.Error)(nil); errors.As(d.reloadErr, &e) && e.Hint != "" {
			text += " (" + e.Hint + ")"
		}
		v.problem("the %s at %s failed: %s", d.failing, d.failed.Format("15:04:05"), text)
	}
}

// addServing says what keeps the daemon from serving it.
func (v *view) addServing(d *daemon) {
	switch {
	case errors.Is(d.applyErr, bpf.ErrLayout):
		v.problem("this version cannot take over the data plane of the one before, which serves on as it was: %v; install that version again, or run systemctl stop and start: connects to VIPs go to the wire in between", d.applyErr)
	case d.applyErr != nil && d.standsBy():
		v.problem("what the process before left serves on as it was, whatever becomes of backends: the files cannot take its place; they are tried again when units or cgroups change: %v", d.applyErr)
	case d.applyErr != nil:
		v.problem("the kernel does not have the newest state: %v", d.applyErr)
	}
	if d.pending == nil && !d.ready {
		v.problem("not ready: the VIPs are not in the kernel yet")
	}
	if d.ready && d.dp.dataPath != nil && !d.attached && d.applyErr == nil {
		v.problem("no hook is attached: not every cgroup could be looked at yet")
	}
	if d.hooksErr != nil {
		v.problem("hooks are not attached, so calls go to the wire or are not counted: %s", strings.ReplaceAll(d.hooksErr.Error(), "\n", "; "))
	}
	if text := d.apiErr.Load(); text != nil {
		v.problem("%s", *text)
	}
	if text := d.web.err.Load(); text != nil {
		v.problem("%s", *text)
	}
	for _, text := range slices.Concat(v.part.problems(), d.cramped.problems()) {
		v.problem("%s", text)
	}
	if d.left > 0 {
		v.problem("the table of cgroups has no room for %s: their callers are in the group of what they lie in; an eighth of the table is left to those that root makes", prose.Plural(d.left, "cgroup"))
	}
	if d.rootShared {
		v.problem("another process has locked the cgroup root; where it is a second slicelb serve, both translate and neither knows: %s", d.root.Path)
	}
	if !d.lockHeld {
		v.problem("the lock file was removed: a second daemon could start")
	}
}

// addDataPlane says what the kernel has, and who keeps it there.
func (v *view) addDataPlane(d *daemon) {
	if d.dp.lost != nil {
		v.note("what the process before left could not be adopted: %v", d.dp.lost)
	}
	if d.dp.dataPath != nil {
		for _, f := range d.dp.Missing() {
			v.status.DataPlane.Missing = append(v.status.DataPlane.Missing, f.Name)
			v.note("%s is missing here: %s", f.Name, f.Reason)
		}
		for _, h := range bpf.Hooks {
			if d.attached && !slices.Contains(v.status.DataPlane.Missing, h.Name) {
				v.status.DataPlane.Hooks = append(v.status.DataPlane.Hooks, h.Name)
			}
		}
		v.status.DataPlane.Hooks = append(v.status.DataPlane.Hooks, d.hooked...)
		if d.running != nil && d.dp.Limits().Slots < d.running.cfg.Daemon.Slots {
			v.note("slots = %d takes effect after systemctl stop and start; until then there are %d", d.running.cfg.Daemon.Slots, d.dp.Limits().Slots)
		}
		v.status.DataPlane.Slots.Capacity = uint64(d.dp.Limits().Slots)
	}
	if h := v.status.DataPlane.Held; d.attached && d.ready && !h.Store {
		if d.notify.Managed() {
			v.problem("data plane held by this process only: %s; a kill would end it until the next start", h.Reason)
		} else {
			v.note("data plane held by this process only: it ends with it")
		}
	}
}

// addTracking says how cgroups are followed.
func (v *view) addTracking(s *unitwatch.Snapshot) {
	t := &v.status.Tracking
	t.Mode, t.Complete, t.Cause = s.Mode.String(), s.Complete, cmp.Or(s.Failed, s.Cause)
	if s.Failed != "" {
		v.problem("%s cannot be looked into: %s; until then groups that a reload removes stay in force, and no start is ready", prose.Plural(s.Failures, "cgroup"), s.Failed)
	}
	closed, first := 0, ""
	for _, c := range s.Cgroups {
		if c.Closed {
			if closed++; closed == 1 {
				first = c.Path
			}
		}
		switch {
		case c.Match.Anchor:
			t.Anchors++
		case c.Member || c.Match.Split:
			t.Members++
		}
		for _, p := range c.Match.Lost {
			t.Lost = append(t.Lost, fmt.Sprintf("%s also matches %s, which belongs to group %s", p, prose.Foreign(c.Path), c.Match.Group))
		}
	}
	t.Cgroups = t.Anchors + t.Members
	t.Pending = append(t.Pending, s.Pending...)
	for i, l := range t.Lost {
		if i == lostTold {
			v.note("and so for %d more", len(t.Lost)-i)
			break
		}
		v.note("%s", l)
	}
	if closed > 0 {
		v.note("%s may not be looked into, %s for one: what lies there is in the group around it, but for what the kernel maps itself", prose.Plural(closed, "cgroup"), prose.Brief(first))
	}
	if s.Mode == unitwatch.CgroupfsOnly {
		v.note("systemd is not asked: %s", s.Cause)
	}
	if p := s.Tree.Inexact(); len(p) > 0 {
		v.note("the kernel cannot match by itself, so that cgroups are mapped a moment after they are made: %s", prose.Some(p))
	}
}

// lostTold is of how many such cgroups status has a note.
const lostTold = 10

// groupOf describes a configured group; cgroups, where they are wanted, are all
// that have it or are a split child of it.
func (v *view) groupOf(g *config.Group, cgroups bool) api.Group {
	out := api.Group{Name: g.Name, Split: g.Split, Translate: g.Translate, Policy: policyDefault(v.source.cfg, g), Strict: g.Strict, Origin: g.Origin.String(), Slices: []string{}, Pending: []string{}}
	for _, a := range g.Anchors {
		out.Slices = append(out.Slices, a.Text)
		if v.snap != nil && slices.Contains(v.snap.Pending, a.Pattern) {
			out.Pending = append(out.Pending, a.Text)
		}
	}
	if v.snap == nil {
		return out
	}
	for _, c := range v.snap.Cgroups {
		if c.Group != g.Name && !strings.HasPrefix(c.Group, g.Name+"/") {
			continue
		}
		switch {
		case c.Match.Anchor && c.Match.Group == g.Name:
			out.Anchors++
		case c.Member || c.Match.Split:
			out.Members++
		default:
			continue
		}
		if cgroups {
			out.Cgroups = append(out.Cgroups, apiCgroup(c))
		}
	}
	return out
}

func apiCgroup(c unitwatch.Cgroup) api.Cgroup {
	return api.Cgroup{ID: c.ID, Path: c.Path, Group: c.Group, Anchor: c.Match.Anchor, Split: c.Match.Split, Unit: c.Unit}
}
