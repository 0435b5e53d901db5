package lb

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/internal/kerneltest"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// The kernel denies what the rules say in their order, over TCP and UDP, by
// connect and by sendto, IPv4, v4-mapped and IPv6, for each group; and nothing to
// the daemon's own.
// threat P8
func TestKernelPolicyIsFirstMatch(t *testing.T) {
	kerneltest.Root(t)
	kerneltest.EnterNetns(t)
	root := kerneltest.NewCgroup(t)
	d, err := bpf.New(bpf.Options{Slots: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Attach(root.Open(t)); err != nil {
		t.Fatal(err)
	}
	r := run(t, d)
	clients := map[string]*kerneltest.Client{HostGroup: kerneltest.Start(t, root)}
	ids := map[string]uint64{}
	for _, name := range append([]string{DaemonGroup}, groupNames...) {
		dir := root.Make(t, name)
		ids[name], clients[name] = dir.ID(t), kerneltest.Start(t, dir)
	}
	worlds := rapid.Custom(drawWorld)
	denied, allowed := 0, 0
	for seed := range 24 {
		w := worlds.Example(seed)
		if len(w.cfg.Policy.Rules) == 0 {
			continue
		}
		m := Membership{Complete: true, Self: ids[DaemonGroup]}
		for _, g := range w.cfg.Groups {
			m.Cgroups = append(m.Cgroups, Member{ID: ids[g.Name], Match: &anchor.Match{Group: g.Name}})
		}
		state, err := Compile(w.cfg, nil, m, w.rt)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Reconcile(t.Context(), state); err != nil {
			t.Fatal(err)
		}
		for name, c := range clients {
			group := name
			if group != DaemonGroup && !w.has(group) {
				group = HostGroup
			}
			for _, k := range questions() {
				want := Judge(w.cfg, group, k.Addr, config.Proto(k.Proto)).Action == bpf.PolicyDeny
				for how, err := range calls(c, k) {
					if got := err == unix.EPERM; got != want {
						t.Errorf("world %d: %s, %s to %s: %v, want denied: %t", seed, name, how, k, err, want)
					} else if got {
						denied++
					} else {
						allowed++
					}
				}
			}
		}
	}
	if denied < 100 || allowed < 100 {
		t.Errorf("%d calls denied and %d not: the worlds say little", denied, allowed)
	}
}

// calls are the ways to an address, and how they fail.
func calls(c *kerneltest.Client, k bpf.FrontendKey) map[string]error {
	to := k.Addr.String()
	out := map[string]error{}
	if k.Addr.Port() == 0 {
		return out
	}
	if k.Proto == bpf.TCP {
		s := c.TCP(to)
		out["connect"] = s.Connect(to)
		s.Close()
		return out
	}
	s := c.UDP(to)
	out["sendto"] = s.SendTo("x", to, 0)
	out["connect"] = s.Connect(to)
	s.Close()
	if k.Addr.Addr().Is4() {
		mapped := fmt.Sprintf("[::ffff:%s]:%d", k.Addr.Addr(), k.Addr.Port())
		s := c.UDP(mapped)
		out["mapped sendto"] = s.SendTo("x", mapped, 0)
		out["mapped connect"] = s.Connect(mapped)
		s.Close()
	}
	return out
}
