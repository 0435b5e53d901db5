package main

import (
	"context"
	"time"

	"github.com/slicelb/slicelb/api"
)

func (c canned) Policy(context.Context) (*api.Policy, error) {
	if c.is("no-policy") {
		return &api.Policy{Default: "allow"}, nil
	}
	return &api.Policy{
		Default: "allow",
		Groups:  []api.Default{{Group: "jobs", Action: "deny"}},
		Rules: []api.Rule{
			{From: []string{"jobs"}, To: []string{"db", "10.1.0.0/16:8000-8999/tcp"}, Action: "allow", Hits: 12, Decides: true, Origin: "/etc/slicelb/slicelb.toml:9:3"},
			{From: []string{"jobs"}, To: []string{"db"}, Action: "deny", Origin: "/etc/slicelb/conf.d/10-a.toml:1:3"},
			{From: []string{"any"}, To: []string{"10.0.0.0/8", "fd00::/8"}, Action: "audit", Hits: 1, Decides: true, Origin: "/etc/slicelb/conf.d/10-a.toml:6:3"},
		},
		Calls: []api.GroupCalls{
			{Group: "jobs", VIP: "db", Counters: api.Counters{Connects: 7, Denied: 2}},
			{Group: "jobs", Counters: api.Counters{Denied: 9}},
			{Group: "web", VIP: "db", Counters: api.Counters{Denied: 1}},
			{Group: "web", VIP: "cache", Counters: api.Counters{Passed: 1}},
		},
		Seen: []api.Seen{
			{Group: "host", Address: "10.0.0.9:53", Proto: "udp", Count: 4, Ago: time.Minute},
			{Group: "web", Address: "[fd00::9]:443", Proto: "tcp", Count: 1, Ago: time.Hour},
		},
		Lost: uint64(btoi(c.is("lost"))),
	}, nil
}
