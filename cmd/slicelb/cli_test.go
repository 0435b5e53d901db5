package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/unitwatch"
)

// TestScripts runs the command line in this process. Beside testscript's own
// commands there are:
//
//	slicelb ARGS...   the program; with "!" it must not exit 0
//	code N            the last slicelb's exit status
//	daemon            a daemon that serves canned answers at $SLICELB_SOCKET
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("SLICELB_SOCKET", filepath.Join(e.WorkDir, "api.sock"))
			e.Setenv("TERM", "xterm")
			e.Setenv("PID", strconv.Itoa(os.Getpid()))
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case "cgroup2":
				_, err := unitwatch.FindRoot()
				return err == nil, nil
			}
			return false, errors.New("unknown condition")
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"slicelb": func(ts *testscript.TestScript, neg bool, args []string) {
				lookup := func(name string) (string, bool) {
					v := ts.Getenv(name)
					return v, v != ""
				}
				for i, a := range args {
					if strings.HasPrefix(a, "./") {
						args[i] = ts.MkAbs(a)
					}
				}
				code := run(context.Background(), &env{
					stdout: ts.Stdout(), stderr: ts.Stderr(), lookup: lookup, terminal: isSet(lookup, "TERMINAL"),
					unset: func(string) error { return nil },
					hup:   func() (<-chan os.Signal, func()) { return nil, func() {} },
				}, args)
				ts.Setenv("CODE", strconv.Itoa(code))
				if neg == (code == exitOK) {
					ts.Fatalf("slicelb: exit status %d", code)
				}
			},
			"code": func(ts *testscript.TestScript, _ bool, args []string) {
				if len(args) != 1 || ts.Getenv("CODE") != args[0] {
					ts.Fatalf("exit status %s, want %v", ts.Getenv("CODE"), args)
				}
			},
			"daemon": func(ts *testscript.TestScript, _ bool, args []string) {
				ln, err := api.Listen(ts.Getenv("SLICELB_SOCKET"), -1)
				ts.Check(err)
				ctx, stop := context.WithCancel(context.Background())
				done := make(chan error, 1)
				srv := &api.Server{Daemon: canned{args}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
				go func() { done <- srv.Serve(ctx, ln) }()
				ts.Defer(func() {
					stop()
					if err := <-done; err != nil {
						t.Errorf("serve: %v", err)
					}
				})
			},
		},
	})
}

// isSet reports whether a variable is set.
func isSet(lookup func(string) (string, bool), name string) bool {
	_, ok := lookup(name)
	return ok
}

// canned is a daemon whose answers do not change; its words choose among them.
type canned struct{ words []string }

func (c canned) is(word string) bool {
	for _, w := range c.words {
		if w == word {
			return true
		}
	}
	return false
}

func (c canned) Status(ctx context.Context) (*api.Status, error) {
	db, _ := c.VIP(ctx, "db")
	web, _ := c.Group(ctx, "web")
	s := &api.Status{
		State: api.OK, Version: "1.2.3", PID: 4711, Started: time.Now().Add(-90 * time.Minute),
		Config: api.Config{Path: "/etc/slicelb/slicelb.toml", Files: []string{"/etc/slicelb/slicelb.toml"}, Loaded: time.Now()},
		DataPlane: api.DataPlane{Attached: true, CgroupRoot: "/sys/fs/cgroup", Hooks: []string{"connect4", "connect6"},
			Held: api.Held{Store: true, Count: 30, Want: 30}, Slots: api.Usage{Used: 2, Capacity: 1024}},
		Tracking: api.Tracking{Mode: "bus", Complete: true, Cgroups: 3, Anchors: 1, Members: 2, Pending: []string{"later.slice"},
			Resync:  api.Resync{At: time.Now().Add(-7 * time.Second), Cause: "periodic", Took: 1234567, Count: 5},
			Sources: map[string]uint64{"kernel": 12, "kernel_lost": 0, "signals": 3},
			Mapped: api.Latency{Count: 4, Last: 3 * time.Millisecond, Most: 12 * time.Millisecond,
				Buckets: []api.Bucket{{Most: 10 * time.Millisecond, Count: 3}, {Count: 1}}}},
		VIPs: []api.VIP{*db}, Groups: []api.Group{*web},
		Notes: []string{"group.web: later.slice does not exist yet"},
	}
	if c.is("starting") {
		s.State, s.DataPlane.Attached, s.DataPlane.Hooks, s.DataPlane.Held = api.Degraded, false, nil, api.Held{}
		s.DataPlane.Before = c.is("again")
		s.Problems = []string{"not ready: the VIPs are not in the kernel yet"}
	}
	if c.is("degraded") {
		s.State, s.DataPlane.Held = api.Degraded, api.Held{Count: 3, Want: 30, Reason: "the unit's store is full"}
		s.Problems = []string{"data plane held by this process only: the unit's store is full"}
	}
	return s, nil
}

func (c canned) VIP(_ context.Context, name string) (*api.VIP, error) {
	if name != "db" {
		return nil, &api.Error{Code: api.NotFound, Text: "no VIP " + strconv.Quote(name), Hint: "slicelb vip list"}
	}
	return &api.VIP{
		Name: "db", Frontends: []string{"10.96.0.10:5432", "[fd00:96::10]:5432"}, Clients: []string{"web"},
		Affinity: "10m0s", DrainTimeout: "0s", RejectUnknownPorts: true,
		Hidden: "pass", WhenDown: "reject", Up: 1, Origin: "/etc/slicelb/slicelb.toml:3:1",
		Counters: api.Counters{Connects: 41, Flows: 1, Rejected: 7},
		Backends: []api.Backend{
			{VIP: "db", Address: "192.0.2.11:5432", Weight: 3, State: "active", Share: 1, Live: 7, Counters: api.Counters{Connects: 42},
				Check: &api.Check{Type: "http", State: "up", Last: time.Now(), Took: 1234567, Count: 7, Run: 7}},
			{VIP: "db", Address: "192.0.2.12:5432", State: "draining", Order: "drain", Since: time.Now().Add(-5 * time.Minute), Reason: "drained by root"},
			{VIP: "db", Address: "192.0.2.13:5432", Weight: 1, State: "down", Reason: "failing: tls: \x1b[2J is not db"},
		},
		For: []api.View{{Group: "canary", WhenDown: "reject", Backends: []api.Backend{
			{VIP: "db", Group: "canary", Address: "192.0.2.20:5432", Weight: 1, State: "active"}}}},
	}, nil
}

func (c canned) Group(_ context.Context, name string) (*api.Group, error) {
	if name != "web" {
		return nil, &api.Error{Code: api.NotFound, Text: "no group " + strconv.Quote(name), Hint: "slicelb group list"}
	}
	return &api.Group{
		Name: "web", Slices: []string{"web.slice", "later.slice"}, Translate: true, Anchors: 1, Members: 2,
		Pending: []string{"later.slice"}, Origin: "/etc/slicelb/slicelb.toml:1:1",
		Cgroups: []api.Cgroup{
			{ID: 100, Path: "/web.slice", Group: "web", Anchor: true},
			{ID: 101, Path: "/web.slice/bad\x1b[2J.scope", Group: "web", Unit: "bad\x1b[2J.scope"},
		},
	}, nil
}

func (c canned) RunningConfig(context.Context) (*api.RunningConfig, error) {
	return &api.RunningConfig{Path: "/etc/slicelb", TOML: `[group.web]
slices = ["web.slice"]

[vip.db]
frontends = ["10.96.0.10:5432"]
clients = ["web"]

[[vip.db.backend]]
address = "192.0.2.11:5432"
`}, nil
}

func (c canned) Explain(_ context.Context, q api.Question) (*api.Explanation, error) {
	x := &api.Explanation{
		Address: q.Address, Cgroup: q.Cgroup, Group: "web",
		Ancestors: []api.Ancestor{
			{Path: q.Cgroup},
			{Path: "/web.slice/bad\x1b[2J.scope", ID: 101, Kind: "member", Group: "web", Unit: "bad\x1b[2J.scope", Decides: true},
			{Path: "/web.slice", ID: 100, Kind: "anchor", Group: "web", Unit: "web.slice"},
			{Path: "/", ID: 1, Kind: "way"},
		},
		Steps: []api.Step{{Look: "caller " + q.Cgroup, Found: "group web"}},
	}
	if q.Address == "" {
		x.VIPs = []api.Verdict{{VIP: "db", Address: "10.96.0.10:5432", Action: "balance", Reason: "one of 1 backend of VIP db"}}
		return x, nil
	}
	x.VIP, x.Action, x.Reason = "db", "balance", "one of 1 backend of VIP db"
	x.Backends = []api.Backend{{VIP: "db", Address: "192.0.2.11:5432", Weight: 3, State: "active", Counters: api.Counters{Connects: 5}}}
	return x, nil
}

func (c canned) Dump(context.Context) (*api.Dump, error) {
	return &api.Dump{Lines: []string{"frontend 10.96.0.10:5432/tcp 1"}}, nil
}

func (c canned) Live(_ context.Context, b api.BackendChange) (*api.Live, error) {
	live := &api.Live{Backends: []api.BackendLive{{VIP: "db", Address: "192.0.2.11:5432", Order: "drain"}}}
	if c.is("busy") {
		live.Backends[0].Live = 3
	}
	if c.is("again") {
		live.Backends[0] = api.BackendLive{VIP: "db", Address: "192.0.2.11:5432", Live: 3}
	}
	return live, nil
}

func (c canned) SetBackend(_ context.Context, b api.BackendChange) (*api.BackendChanged, error) {
	switch {
	case b.Unit == "web@1.service":
		return &api.BackendChanged{Before: "ready", Backends: []api.BackendBefore{{VIP: "db", Address: "192.0.2.11:5432", Before: "ready"}}, Writes: 3}, nil
	case b.Unit == "web@2.service":
		return &api.BackendChanged{Before: "ready", Backends: []api.BackendBefore{}}, nil
	case b.Unit != "":
		return nil, &api.Error{Code: api.NotFound, Text: "no backend is the unit " + strconv.Quote(b.Unit)}
	case b.VIP != "db":
		return nil, &api.Error{Code: api.NotFound, Text: "no VIP " + strconv.Quote(b.VIP), Hint: "slicelb vip list"}
	}
	one := api.BackendBefore{VIP: b.VIP, Address: b.Address, Before: "ready"}
	out := &api.BackendChanged{Before: "ready", Writes: 3}
	switch {
	case c.is("forgetful"):
		out.Forgotten = "the store is full"
	case b.Address == "192.0.2.12:5432" && b.State == "drain":
		out.Before, one.Before = "drain", "drain"
	case b.Address == "192.0.2.12:5432" && b.State == "ready":
		one.Before, one.Down = "drain", "failing: connection refused"
	}
	out.Backends = []api.BackendBefore{one}
	return out, nil
}

func (c canned) Reload(ctx context.Context) (*api.Reloaded, error) {
	switch {
	case c.is("broken"):
		return nil, &api.Error{Code: api.BadConfig, Text: "/etc/slicelb/slicelb.toml:1:1: error: unknown key \"x\"\n2 errors; running configuration unchanged"}
	case c.is("slow"):
		<-ctx.Done()
		return nil, api.Errorf(api.Timeout, "reload: not done in time")
	}
	return &api.Reloaded{Writes: 3, Took: 1234 * time.Microsecond, VIPs: 1, Groups: 2}, nil
}

// Every command says what it is, what it does and how it is used, in one voice.
func TestHelp(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		t.Run(strings.ReplaceAll(c.CommandPath(), " ", "_"), func(t *testing.T) {
			if c.Short == "" || c.Long == "" {
				t.Error("short or long help is missing")
			}
			if strings.HasSuffix(c.Short, ".") || c.Short[:1] != strings.ToUpper(c.Short[:1]) {
				t.Errorf("short help %q: want a capital and no period", c.Short)
			}
			for _, line := range strings.Split(c.Long+"\n"+c.Example, "\n") {
				if len(line) > 100 {
					t.Errorf("line of %d bytes: %q", len(line), line)
				}
			}
			if !c.HasSubCommands() && c.Example == "" {
				t.Error("no example")
			}
			var out strings.Builder
			e := &env{stdout: &out, stderr: io.Discard, lookup: func(string) (string, bool) { return "", false }}
			args := append(strings.Fields(c.CommandPath())[1:], "--help")
			if code := run(context.Background(), e, args); code != exitOK {
				t.Errorf("--help: exit status %d", code)
			}
			if !strings.Contains(out.String(), strings.SplitN(c.Long, "\n", 2)[0]) {
				t.Errorf("--help does not say what the command does:\n%s", out.String())
			}
		})
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&env{lookup: func(string) (string, bool) { return "", false }}))
}

// Every command takes the flags of a listing, or none of them.
func TestListings(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		o, n := c.Flags().Lookup("output"), c.Flags().Lookup("no-headers")
		if (o == nil) != (n == nil) {
			t.Errorf("%s: -o without --no-headers, or the other way round", c.CommandPath())
		}
		if o != nil && (o.Shorthand != "o" || o.DefValue != "table") {
			t.Errorf("%s: -o is not like the others'", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&env{lookup: func(string) (string, bool) { return "", false }}))
}

func TestBelow(t *testing.T) {
	for _, test := range []struct{ path, dir, want string }{
		{"/web.slice", "/", "/web.slice"},
		{"/part/web.slice", "/part", "/web.slice"},
		{"/part", "/part", "/"},
		{"/partly/web.slice", "/part", ""},
		{"/sys/fs/cgroup", "/sys/fs/cgroup", "/"},
		{"/other", "/part", ""},
	} {
		if got, ok := below(test.path, test.dir); got != test.want || ok != (test.want != "") {
			t.Errorf("below(%q, %q) = %q, %t, want %q", test.path, test.dir, got, ok, test.want)
		}
	}
}
