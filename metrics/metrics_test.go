package metrics

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/health"
	"github.com/slicelb/slicelb/lb"
)

// example has a value for every family.
func example() *Reading {
	counters := api.Counters{Connects: 5, Flows: 4, Passed: 3, Rejected: 2, Denied: 1}
	db := api.Backend{VIP: "db", Address: "192.0.2.11:5432", State: "active", Counters: counters, Check: &api.Check{State: "up", Count: 9, Took: 3 * time.Millisecond}}
	other := db
	other.Address, other.State, other.Check = "192.0.2.12:5432", "down", &api.Check{State: "down"}
	canary := db
	canary.Address, canary.Check = "192.0.2.20:5432", nil
	db.Live = 7
	return &Reading{
		Ready: true, GoVersion: "go1.26.0",
		Status: &api.Status{
			Version: "1.0.0", Problems: []string{"one"},
			Config:    api.Config{Loaded: time.Unix(1700000000, 5e8)},
			DataPlane: api.DataPlane{Attached: true, Held: api.Held{Store: true, Count: 40, Want: 40}, Events: map[string]uint64{"pairs_full": 1}},
			Tracking: api.Tracking{Mode: "bus", Complete: true, Sources: map[string]uint64{"kernel": 12, "signals": 3},
				Mapped: api.Latency{Count: 3, Sum: time.Second, Buckets: []api.Bucket{{Most: time.Millisecond, Count: 1}, {Most: time.Second, Count: 1}, {Count: 1}}}},
			VIPs: []api.VIP{{Name: "db", Up: 1, Families: []api.Family{{Family: 4, Up: 1}, {Family: 6}}, Counters: counters, Backends: []api.Backend{db, other, db},
				For: []api.View{{Group: "canary", Backends: []api.Backend{canary, db}}}}},
			Groups: []api.Group{{Name: "web", Anchors: 1, Members: 2, Pending: []string{"/x.slice"}}},
		},
		Calls:    []api.Calls{{Group: "host", VIP: "db", Counters: counters}},
		Networks: []api.Calls{{Group: "web", Counters: api.Counters{Denied: 6}}},
		Children: []ChildCalls{
			{Calls: api.Calls{Group: "jobs", VIP: "db", Counters: counters}, Child: "a.scope"},
			{Calls: api.Calls{Group: "jobs", VIP: "db", Counters: counters}, Child: "a\xff\"\n{}.scope"},
			{Calls: api.Calls{Group: "jobs", Counters: api.Counters{Denied: 8}}, Child: "a.scope"},
		},
		Uncounted:  map[string]int{"jobs": 3},
		Rules:      []api.Rule{{Action: "allow"}, {Action: "deny", Hits: 6}},
		Tables:     []Table{{"frontends", api.Usage{Used: 1, Capacity: 65535}}},
		Causes:     map[string]uint64{"start": 1},
		Reconciler: lb.Stats{Writes: 7, LastSuccess: time.Unix(1700000001, 0)},
		Reconciled: api.Latency{Count: 1, Sum: time.Millisecond, Buckets: []api.Bucket{{Most: time.Millisecond, Count: 1}, {}}},
		Health:     health.Stats{Targets: 2, Checks: 10, Failed: 3, Void: 1},
	}
}

func written(t *testing.T, r *Reading) string {
	t.Helper()
	b, err := New(func(context.Context) (*Reading, error) { return r, nil }).Text(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestText(t *testing.T) {
	got := written(t, example())
	for _, want := range []string{
		`slicelb_vip_calls_total{verdict="connects",vip="db"} 5`,
		`slicelb_vip_calls_total{verdict="rejected",vip="db"} 2`,
		`slicelb_group_calls_total{group="host",verdict="passed",vip="db"} 3`,
		`slicelb_group_calls_total{group="host",verdict="denied",vip="db"} 1`,
		`slicelb_group_network_denied_total{group="web"} 6`,
		`slicelb_split_calls_total{child="a.scope",group="jobs",verdict="connects",vip="db"} 5`,
		`slicelb_split_calls_total{child="\"a\\xff\\\"\\n{}.scope\"",group="jobs",verdict="denied",vip="db"} 1`,
		`slicelb_split_network_denied_total{child="a.scope",group="jobs"} 8`,
		`slicelb_split_uncounted{group="jobs"} 3`,
		`slicelb_policy_rule_calls_total{action="deny",rule="2"} 6`,
		`slicelb_backend_calls_total{backend="192.0.2.11:5432",verdict="flows",vip="db"} 4`,
		`slicelb_backend_up{backend="192.0.2.12:5432",vip="db"} 0`,
		`slicelb_backend_check_up{backend="192.0.2.12:5432",vip="db"} 0`,
		`slicelb_backend_check_duration_seconds{backend="192.0.2.11:5432",vip="db"} 0.003`,
		`slicelb_vip_backends{state="active",vip="db"} 2`,
		`slicelb_vip_backends{state="down",vip="db"} 1`,
		`slicelb_vip_up{family="4",vip="db"} 1`,
		`slicelb_vip_up{family="6",vip="db"} 0`,
		`slicelb_table_capacity_entries{table="frontends"} 65535`,
		`slicelb_watcher_mode{mode="bus"} 1`,
		`slicelb_watcher_hint_to_map_seconds_bucket{le="1"} 2`,
		`slicelb_watcher_hint_to_map_seconds_count 3`,
		`slicelb_health_checks_total{result="passed"} 6`,
		`slicelb_config_loaded_timestamp_seconds 1.7000000005e+09`,
		`slicelb_build_info{goversion="go1.26.0",version="1.0.0"} 1`,
		`slicelb_problems 1`,
		`slicelb_backend_live_sockets{backend="192.0.2.11:5432",vip="db"} 7`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	// A backend that is there twice, or in a view as well, is one.
	if n := strings.Count(got, "slicelb_backend_up{"); n != 3 {
		t.Errorf("%d backends, want 3", n)
	}
	for _, f := range families {
		if !regexp.MustCompile(`(?m)^` + f.Name + `(_count|\{| )`).MatchString(got) {
			t.Errorf("%s has no value", f.Name)
		}
	}
}

// Nothing at all to tell is no error: no VIP, no data plane, no check yet.
func TestEmpty(t *testing.T) {
	got := written(t, &Reading{Status: &api.Status{}})
	if !strings.Contains(got, "slicelb_ready 0\n") || !strings.Contains(got, "slicelb_attached 0\n") || strings.Contains(got, "slicelb_vip_calls_total{") {
		t.Errorf("got\n%s", got)
	}
}

// What cannot be read is an error, and no metric.
func TestUnreadable(t *testing.T) {
	broken := errors.New("broken by a test")
	if b, err := New(func(context.Context) (*Reading, error) { return nil, broken }).Text(t.Context()); !strings.Contains(err.Error(), broken.Error()) || b != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// Names follow the conventions.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range families {
		if seen[f.Name] {
			t.Errorf("%s stands twice", f.Name)
		}
		seen[f.Name] = true
		if total := strings.HasSuffix(f.Name, "_total"); !strings.HasPrefix(f.Name, "slicelb_") || total != (f.Type == counter) || !strings.HasSuffix(f.Help, ".") {
			t.Errorf("%s, a %s: %s", f.Name, f.Type, f.Help)
		}
		if (f.latency != nil) != (f.Type == histogram) {
			t.Errorf("%s is collected as another type", f.Name)
		}
		if !slices.IsSorted(slices.Compact(slices.Sorted(slices.Values(f.Labels)))) {
			t.Errorf("%s has a label twice", f.Name)
		}
		for _, l := range f.Labels {
			if !slices.Contains([]string{"vip", "group", "child", "backend", "family", "verdict", "state", "table", "event", "mode", "cause", "source", "reason", "what", "result", "rule", "action", "version", "goversion"}, l) {
				t.Errorf("%s has a label %s: is what it says from the configuration, or a word of this program?", f.Name, l)
			}
		}
	}
}

// promtool runs Prometheus' own checks; where it is not installed the test is
// skipped, under CI=true that is a failure: make test installs it.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("promtool is not installed (Debian package prometheus)")
		}
		t.Skip("promtool is not installed (Debian package prometheus)")
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
}

func TestPromtool(t *testing.T) {
	promtool(t, written(t, example()), "check", "metrics")
}
