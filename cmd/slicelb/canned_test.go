package main

import (
	"context"
	"io"
	"sync/atomic"
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
	if o.Last == 0 {
		return &cannedStream{}, nil
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

var topAsked atomic.Uint64

// Top is a second further each time that it is asked.
func (c canned) Top(context.Context) (*api.Top, error) {
	return topAt(topAsked.Add(1)), nil
}

// topAt is what was counted after n seconds.
func topAt(n uint64) *api.Top {
	took := func(counts ...uint32) []api.TookCount {
		var out []api.TookCount
		for i, c := range counts {
			t := api.TookCount{Below: time.Microsecond << (5 + i), Count: c}
			if i == len(counts)-1 {
				t.Below = 0
			}
			out = append(out, t)
		}
		return out
	}
	m := uint32(n)
	return &api.Top{
		At: time.Unix(1772600000+int64(n), 0),
		VIPs: []api.TopVIP{
			{Name: "db", Up: 2, Backends: 3, Live: 7, Counters: api.Counters{Connects: 100 * n, Flows: 5 * n, Rejected: 2 * n, Denied: 7 * n}, Took: took(60*m, 39*m, 0, 1*m)},
			{Name: "www", Up: 1, Backends: 1, Live: 900, Counters: api.Counters{Connects: 20 * n, Passed: 3 * n}, Took: []api.TookCount{}},
			{Name: "idle", Up: 0, Backends: 2},
		},
		Groups: []api.TopGroup{
			{Group: "host", VIP: "www", Counters: api.Counters{Passed: 3 * n}},
			{Group: "jobs/a\x1b[2J.scope", VIP: "db", Counters: api.Counters{Connects: 40 * n, Rejected: 2 * n, Denied: 7 * n}},
			{Group: "web", VIP: "db", Counters: api.Counters{Connects: 60 * n, Flows: 5 * n}},
			{Group: "web", VIP: "www", Counters: api.Counters{Connects: 20 * n}},
		},
		Backends: []api.TopBackend{
			{VIP: "db", Address: "192.0.2.11:5432", State: "active", Share: 0.75, Live: 5, Counters: api.Counters{Connects: 80 * n}},
			{VIP: "db", Address: "192.0.2.12:5432", State: "active", Share: 0.25, Live: 2, Counters: api.Counters{Connects: 25 * n}},
			{VIP: "db", Group: "canary", Address: "192.0.2.20:5432", State: "down"},
			{VIP: "www", Address: "192.0.2.80:80", State: "active", Share: 1, Live: 900, Counters: api.Counters{Connects: 20 * n}},
		},
	}
}
