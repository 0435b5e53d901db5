package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/observe"
)

// newObserver makes what keeps and passes on what the programs tell.
func (d *daemon) newObserver() (*observe.Observer, *refusals) {
	r := newRefusals(d.log)
	c := &callers{view: &d.view}
	return observe.New(observe.Options{
		Names: c.name, At: fromMonotonic, Refused: r.add, Missed: r.miss, Log: d.log,
	}), r
}

// hear has the observer read what the programs of the data plane tell.
func (d *daemon) hear(ctx context.Context) {
	r, err := d.dp.Decisions()
	if err != nil {
		d.log.Error("decisions cannot be observed", "err", err)
		return
	}
	d.tasks.Go(func() {
		if err := d.observer.Run(ctx, d.dp, r); err != nil {
			d.log.Error("decisions are observed no more", "err", err)
		}
	})
}

// Observe answers with what is stored, and goes on with what comes.
func (a answers) Observe(_ context.Context, o api.Observation) (api.Stream, error) {
	q := observe.Query{VIP: o.VIP, Group: o.Group, Since: o.Since, Last: o.Last, UID: o.UID}
	for _, name := range o.Verdicts {
		i := slices.IndexFunc(bpf.Tolds, func(t bpf.Told) bool { return t.String() == name })
		if i < 0 {
			return nil, &api.Error{Code: api.BadRequest, Text: fmt.Sprintf("no verdict %q", name), Hint: "one of " + strings.Join(bpf.ToldNames(), ", ")}
		}
		q.Told = append(q.Told, bpf.Tolds[i])
	}
	v := a.d.view.Load()
	if err := v.knows(o.VIP, o.Group); err != nil {
		return nil, err
	}
	if !o.Follow {
		return &stream{first: a.d.observer.Stored(q)}, nil
	}
	w, stored, err := a.d.observer.Watch(q)
	if errors.Is(err, observe.ErrTooMany) {
		return nil, &api.Error{Code: api.Busy, Text: err.Error(), Hint: "end one of the others"}
	}
	if err != nil {
		return nil, err
	}
	return &stream{first: stored, w: w}, nil
}

// knows says whether there are a VIP and a group of these names; "" always is.
func (v *view) knows(vip, group string) error {
	if v.source == nil {
		return nil
	}
	if vip != "" && v.source.vip(vip) == nil {
		return noVIP(vip)
	}
	parent, _, _ := strings.Cut(group, "/")
	if parent != "" && parent != lb.HostGroup && v.source.group(parent) == nil {
		return noGroup(group)
	}
	return nil
}

// stream is what was stored, then what comes.
type stream struct {
	first []observe.Event
	begun bool
	w     *observe.Watcher // nil: there is no more
	lines []api.Observed
}

func (s *stream) Next(ctx context.Context) ([]api.Observed, error) {
	s.lines = s.lines[:0]
	if !s.begun {
		s.begun = true
		for i := range s.first {
			s.lines = append(s.lines, api.Observed{Decision: decided(&s.first[i])})
		}
		s.first = nil
		if len(s.lines) > 0 {
			return s.lines, nil
		}
	}
	if s.w == nil {
		return nil, io.EOF
	}
	b, err := s.w.Next(ctx)
	if errors.Is(err, observe.ErrEnded) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, err
	}
	for i := range b.Events {
		s.lines = append(s.lines, api.Observed{Decision: decided(&b.Events[i])})
	}
	for _, l := range b.Lost {
		s.lines = append(s.lines, api.Observed{Missing: &api.Missing{Where: l.Where, Group: l.Group, Count: l.Count}})
	}
	return s.lines, nil
}

func (s *stream) Close() {
	if s.w != nil {
		s.w.Close()
	}
}

// decided is an event as it crosses the socket.
func decided(e *observe.Event) *api.Decision {
	d := &api.Decision{
		Time: e.At, Verdict: e.Told.String(), Reason: e.Reason.String(), Rule: e.Rule,
		Group: e.Group, VIP: e.VIP, View: e.View, Call: "connect", Protocol: "tcp",
		Address: e.Asked.String(), Took: e.Took,
		PID: e.TGID, TID: e.PID, Command: e.Comm.String(), Unit: e.Unit, Cgroup: e.Path,
		CgroupID: e.Cgroup, MemberID: e.Member, Netns: e.Netns, Socket: e.Socket,
	}
	if e.Send {
		d.Call = "send"
	}
	if e.Proto == bpf.UDP {
		d.Protocol = "udp"
	}
	if !e.Asked.IsValid() {
		d.Call, d.Protocol, d.Address = "socket", e.Making.String(), ""
	}
	if e.Backend.IsValid() {
		d.Backend = e.Backend.String()
	}
	return d
}
