package daemon

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/prose"
)

// answers is the daemon as the API sees it. Reading asks the published view and
// the kernel, never the loop, so that a busy loop can be looked at.
type answers struct{ d *daemon }

// readMaps reads what the kernel holds, one request after the other: it takes
// memory, and whoever may read may ask as often as he likes. Without a data plane everything is empty.
func (a answers) readMaps(v *view) (*bpf.Dump, *bpf.CounterSnapshot, error) {
	if v.dp == nil {
		return &bpf.Dump{}, &bpf.CounterSnapshot{}, nil
	}
	defer a.d.trim.Store(true)
	a.d.asking.Lock()
	defer a.d.asking.Unlock()
	d, err := v.dp.Dump()
	if err != nil {
		return nil, nil, unreadable("the maps", err)
	}
	n, err := v.dp.Counters()
	if err != nil {
		return nil, nil, unreadable("the counters", err)
	}
	return d, n, nil
}

func (a answers) Status(ctx context.Context) (*api.Status, error) {
	s, _, err := a.status(a.now(ctx))
	return s, err
}

// status says what there is to say where the kernel cannot be read, too: without VIPs
// and groups then, and with a problem. It is an error only while the daemon stops.
func (a answers) status(v *view) (*api.Status, *counted, error) {
	s := v.status
	problems, notes := slices.Clone(v.problems), slices.Clone(v.notes)
	c, err := a.counters(v)
	switch {
	case api.IsBusy(err):
		return nil, nil, err
	case err != nil:
		problems = append(problems, err.Error())
		c = &counted{}
	case v.unread:
		problems = append(problems, unreadText)
	}
	s.DataPlane.Unread = v.unread || err != nil
	s.VIPs, s.Groups = []api.VIP{}, []api.Group{}
	s.DataPlane.Slots.Used = c.slots
	if v.source != nil && !s.DataPlane.Unread {
		for i := range v.source.cfg.VIPs {
			vip := c.vipOf(&v.source.cfg.VIPs[i])
			if note := downNote(&vip); note != "" {
				notes = append(notes, note)
			}
			s.VIPs = append(s.VIPs, vip)
		}
		for i := range v.source.cfg.Groups {
			s.Groups = append(s.Groups, c.denied(v.groupOf(&v.source.cfg.Groups[i], false)))
		}
	}
	if v.source != nil {
		s.Policy = policySummary(v.source.cfg, c)
	}
	s.DataPlane.Events, problems = v.events(problems)
	if n := s.DataPlane.Events["seen_full"]; n > 0 {
		notes = append(notes, fmt.Sprintf("%s found no room in the table of what audits have seen: policy suggest and policy try do not know them", prose.Plural(int(n), "audited call")))
	}
	notes = a.d.sweptNotes(&s.DataPlane.Sockets, notes)
	notes = a.d.watched(&s.Tracking, notes)
	s.Problems, s.Notes = append([]string{}, problems...), append([]string{}, notes...)
	s.State = api.OK
	if len(s.Problems) > 0 {
		s.State = api.Degraded
	}
	return &s, c, nil
}

// events are the programs' own statistics, by name.
func (v *view) events(problems []string) (map[string]uint64, []string) {
	out := map[string]uint64{}
	if v.dp == nil {
		return out, problems
	}
	st, err := v.dp.Stats()
	if err != nil {
		return out, append(problems, err.Error())
	}
	out["storage_failed"] = st.StorageFailed
	out["loopback_netns"] = st.LoopbackNetns
	out["reply_unknown"] = st.ReplyUnknown
	out["stale_frontend"] = st.StaleFrontend
	out["pairs_full"] = st.PairsFull
	out["cgroups_full"] = st.CgroupsFull
	out["events_lost"] = st.EventsLost
	out["anchors_mapped"] = st.AnchorsMapped
	out["failures_lost"] = st.FailuresLost
	out["decisions_lost"] = st.DecisionsLost
	out["policy_broken"] = st.PolicyBroken
	out["seen_full"] = st.SeenFull
	out["strict_refused"] = st.StrictRefused
	if st.PolicyBroken > 0 {
		problems = append(problems, fmt.Sprintf("the policy could not be read %s: the group's default decided", prose.Times(st.PolicyBroken)))
	}
	return out, problems
}

// watched adds what the watcher has counted.
func (d *daemon) watched(t *api.Tracking, notes []string) []string {
	t.Mapped = d.mapped.read()
	if d.watcher == nil {
		t.Sources = map[string]uint64{}
		return notes
	}
	st := d.watcher.Stats()
	t.Resync = api.Resync{At: st.LastResync, Cause: st.LastResyncCause, Difference: st.LastResyncDifference, Took: st.LastWalk, Count: st.Walks}
	t.Sources = map[string]uint64{
		"kernel":            st.Hints,
		"kernel_ignored":    st.HintsIgnored,
		"kernel_lost":       st.HintsLost,
		"overflows":         st.Overflows,
		"signals":           st.Signals,
		"signals_forged":    st.ForgedSignals,
		"signals_malformed": st.MalformedSignals,
		"messages_unasked":  st.Unasked,
		"connects":          st.Connects,
		"calls":             st.Calls,
		"call_errors":       st.CallErrors,
		"looks":             st.Looks,
		"walk_errors":       st.WalkErrors,
		"snapshots":         st.Snapshots,
	}
	if n := st.HintsLost; n > 0 {
		notes = append(notes, fmt.Sprintf("periodic looks at all cgroups found %d that came or went unannounced", n))
	}
	if n := st.ForgedSignals; n > 0 {
		notes = append(notes, fmt.Sprintf("signals on the message bus that pretended to be systemd's were dropped: %d", n))
	}
	return notes
}

func (a answers) VIP(ctx context.Context, name string) (*api.VIP, error) {
	v, err := a.readable(ctx)
	if err != nil {
		return nil, err
	}
	vip := v.source.vip(name)
	if vip == nil {
		return nil, noVIP(name)
	}
	c, err := a.counters(v)
	if err != nil {
		return nil, err
	}
	out := c.vipOf(vip)
	return &out, nil
}

func (a answers) Group(ctx context.Context, name string) (*api.Group, error) {
	v, err := a.readable(ctx)
	if err != nil {
		return nil, err
	}
	parent, child, split := strings.Cut(name, "/")
	g := v.source.group(parent)
	if g == nil {
		return nil, noGroup(name)
	}
	out := v.groupOf(g, true)
	if !split {
		c, err := a.counters(v)
		if err != nil {
			return nil, err
		}
		out = c.denied(out)
		return &out, nil
	}
	out.Cgroups = slices.DeleteFunc(out.Cgroups, func(c api.Cgroup) bool {
		// By its group's name, or by that of its directory.
		return c.Group != name && (!c.Split || path.Base(c.Path) != child)
	})
	if len(out.Cgroups) == 0 {
		return nil, noGroup(name)
	}
	out.Name, out.Anchors, out.Members = out.Cgroups[0].Group, 0, len(out.Cgroups)
	return &out, nil
}

func (a answers) RunningConfig(context.Context) (*api.RunningConfig, error) {
	v := a.d.view.Load()
	if v.source == nil {
		return nil, &api.Error{Code: api.NotFound, Text: "no configuration runs", Hint: "slicelb check"}
	}
	text, err := v.source.said.Text(true)
	if err != nil {
		return nil, err
	}
	return &api.RunningConfig{
		Path: a.d.configPath, Files: v.source.cfg.Files, TOML: text, LastGood: v.source.lastGood,
	}, nil
}

func (a answers) Reload(ctx context.Context) (*api.Reloaded, error) {
	r := &reload{ctx: ctx, done: make(chan reloaded, 1)}
	select {
	case a.d.reloads <- r:
	case <-ctx.Done():
		return nil, api.Errorf(api.Timeout, "reload: not begun in time: the daemon is busy, or the time was too short; running configuration unchanged")
	}
	// The loop answers in any case: it gives up when ctx is done.
	out := <-r.done
	return out.answer, out.err
}

func (a answers) Dump(ctx context.Context) (*api.Dump, error) {
	v, err := a.readable(ctx)
	if err != nil {
		return nil, err
	}
	if v.dp == nil {
		return &api.Dump{Lines: []string{}}, nil
	}
	d, _, err := a.readMaps(v)
	if err != nil {
		return nil, err
	}
	return &api.Dump{Lines: dumpLines(d)}, nil
}
