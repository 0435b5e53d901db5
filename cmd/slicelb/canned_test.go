package main

import (
	"context"
	"io"
	"time"

	"github.com/slicelb/slicelb/api"
)

// cannedStream is a stream of what never changes.
type cannedStream struct{ lines []api.Observed }

func (s *cannedStream) Next(context.Context) ([]api.Observed, error) {
	if s.lines == nil {
		return nil, io.EOF
	}
	lines := s.lines
	s.lines = nil
	return lines, nil
}

func (s *cannedStream) Close() {}

func (c canned) Observe(_ context.Context, o api.Observation) (api.Stream, error) {
	if o.VIP != "" && o.VIP != "db" {
		return nil, &api.Error{Code: api.NotFound, Text: "no VIP \"" + o.VIP + "\"", Hint: "slicelb vip list"}
	}
	at := time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)
	return &cannedStream{[]api.Observed{
		{Decision: &api.Decision{
			Time: at, Verdict: "translated", Reason: "chosen", Group: "web", VIP: "db", Call: "connect", Protocol: "tcp",
			Address: "10.96.0.10:5432", Backend: "192.0.2.11:5432", Took: 1234 * time.Microsecond, PID: 4711, TID: 4712,
			Command: "psql\x1b[2J", Unit: "bad\x1b[2J.scope", Cgroup: "/web.slice/bad\x1b[2J.scope", CgroupID: 101, MemberID: 101,
		}},
		{Decision: &api.Decision{
			Time: at.Add(time.Second), Verdict: "rejected", Reason: "hidden", Group: "host", VIP: "db", Call: "send", Protocol: "udp",
			Address: "10.96.0.10:5432", PID: 1, TID: 1, Command: "init",
		}},
		{Missing: &api.Missing{Where: "budget", Group: "jobs", Count: 1}},
		{Missing: &api.Missing{Where: "kernel", Count: 12}},
		{Missing: &api.Missing{Where: "watcher", Count: 3}},
	}}, nil
}
