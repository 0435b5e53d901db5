package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/config"
	"github.com/slicelb/slicelb/lb"
	"github.com/slicelb/slicelb/unitwatch/anchor"
)

// trial gathers calls and asks both policies about them.
type trial struct {
	now, next *policied
	thens     map[string][]string // the groups that the cgroups of one are in under next
	seen      map[called]string   // where it is known from
}

// add is for a call of a cgroup that is known.
func (t *trial) add(c called, known string) {
	if _, ok := t.seen[c]; !ok {
		t.seen[c] = known
	}
}

// made is a call from this cgroup, which both configurations know the group of.
func (t *trial) made(cgroup string, addr netip.AddrPort, proto config.Proto, known string) {
	t.add(called{group: t.now.groupOf(cgroup), then: t.next.groupOf(cgroup), addr: addr, proto: proto}, known)
}

// counted is a call of which only the group is known that made it. Where its cgroups
// are in several groups then, and these may not do the same, each of them may have.
func (t *trial) counted(group string, addr netip.AddrPort, proto config.Proto, known string) {
	thens := t.groupsThen(group)
	denied := 0
	for _, then := range thens {
		denied += btoi(lb.Judge(t.next.cfg, then, addr, proto).Action == bpf.PolicyDeny)
	}
	if denied == 0 || denied == len(thens) {
		thens = thens[:1]
	}
	for _, then := range thens {
		t.add(called{group: group, then: then, maybe: len(thens) > 1, addr: addr, proto: proto}, known)
	}
}

// groupsThen are the groups that the cgroups of a group are in under the next
// configuration; its own first, where that is one of them.
func (t *trial) groupsThen(group string) []string {
	if thens := t.thens[group]; len(thens) > 0 {
		return thens
	}
	known := func(g config.Group) bool { return g.Name == group }
	if group == lb.DaemonGroup || slices.ContainsFunc(t.next.cfg.Groups, known) {
		return []string{group}
	}
	return []string{lb.HostGroup}
}

// divide asks both configurations about the cgroups that there are below root, and about
// those that they name: a pattern is one of the names that it matches.
func (t *trial) divide(root string) {
	paths := []string{"/"}
	for _, p := range []*policied{t.now, t.next} {
		for i := range p.cfg.Groups {
			for _, a := range p.cfg.Groups[i].Anchors {
				paths = append(paths, a.Pattern)
			}
		}
	}
	if there, err := cgroupPaths(root); err == nil { // else those that are named have to do
		paths = slices.AppendSeq(paths, maps.Values(there))
	}
	t.thens = map[string][]string{}
	for _, path := range paths {
		if now, then := t.now.groupOf(path), t.next.groupOf(path); !slices.Contains(t.thens[now], then) {
			t.thens[now] = append(t.thens[now], then)
		}
	}
	for group, thens := range t.thens {
		slices.SortFunc(thens, func(a, b string) int {
			return cmp.Or(btoi(b == group)-btoi(a == group), strings.Compare(a, b))
		})
	}
}

// gather asks the daemon what it knows, and this host for its connections.
func (t *trial) gather(ctx context.Context, g *globals) error {
	root, rootErr := g.findRoot()
	t.divide(root.Path)
	p, err := g.client().Policy(ctx)
	if err != nil {
		return err
	}
	seen := seenCalls(p)
	used := map[[2]string]bool{} // group, VIP
	for _, c := range p.Calls {
		if n := c.Counters; c.VIP == "" || n.Connects+n.Flows+n.Passed+n.Rejected+n.Denied == 0 {
			continue
		}
		used[[2]string{c.Group, c.VIP}] = true
		list, _ := calledFrontends(seen, t.now.cfg, c.Group, c.VIP)
		for _, f := range list {
			t.counted(c.Group, f.Addr, f.Proto, "counters")
		}
	}
	for _, s := range p.Seen {
		if addr, err := netip.ParseAddrPort(s.Address); err == nil {
			t.counted(s.Group, addr, protoOf(s.Proto), "audit")
		}
	}
	err = g.client().Observe(ctx, api.Observation{Last: -1}, func(o *api.Observed) error {
		if o.Decision != nil {
			t.decided(o.Decision)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = rootErr
	var list []connection
	if err == nil {
		list, err = currentConnections(root.Path)
	}
	if err != nil {
		fmt.Fprintf(g.stderr, "slicelb: connections are left out: %v\n", err)
	}
	t.connected(list, seen, used)
	return nil
}

// decided adds a decision that is kept. One of the daemon's own cgroup is no group's, and
// of some the cgroup was gone, or too deep, before anybody could ask for all of its name.
func (t *trial) decided(d *api.Decision) {
	addr, err := netip.ParseAddrPort(d.Address)
	if err != nil {
		return // a socket that was refused goes nowhere
	}
	group, _, _ := strings.Cut(d.Group, "/")
	if !strings.HasPrefix(d.Cgroup, "/") || group == lb.DaemonGroup {
		t.counted(group, addr, protoOf(d.Protocol), "decision")
		return
	}
	t.made(d.Cgroup, addr, protoOf(d.Protocol), "decision")
}

// connected adds what is connected now. Of one to a VIP only the backend is known:
// where the group has called the VIP, it is taken for one to that.
func (t *trial) connected(list []connection, seen map[seenCall]bool, used map[[2]string]bool) {
	vips := map[netip.AddrPort][]string{} // of a backend
	for i := range t.now.cfg.VIPs {
		v := &t.now.cfg.VIPs[i]
		list := v.Backends
		for _, view := range v.For {
			list = append(list[:len(list):len(list)], view.Backends...)
		}
		for _, b := range list {
			vips[b.Addr] = append(vips[b.Addr], v.Name)
		}
	}
	for _, c := range list {
		group, called := t.now.groupOf(c.cgroup), false
		for _, vip := range vips[c.peer] {
			if !used[[2]string{group, vip}] {
				continue
			}
			frontends, _ := calledFrontends(seen, t.now.cfg, group, vip)
			for _, f := range frontends {
				if f.Proto == c.proto {
					t.made(c.cgroup, f.Addr, f.Proto, "connection")
					called = true
				}
			}
		}
		if !called {
			t.made(c.cgroup, c.peer, c.proto, "connection")
		}
	}
}

// judge asks both policies about every call, in a stable order; without all,
// only what would change is in the answer.
func (t *trial) judge(all bool) []tried {
	out := []tried{}
	for c, known := range t.seen {
		sure := c
		if sure.maybe = false; c.maybe {
			if _, ok := t.seen[sure]; ok {
				delete(t.seen, c)
				continue // it was this cgroup's indeed, and counted as well
			}
		}
		now := lb.Judge(t.now.cfg, c.group, c.addr, c.proto)
		next := lb.Judge(t.next.cfg, c.then, c.addr, c.proto)
		r := tried{
			Group: c.group, Then: c.then, Address: config.Frontend{Addr: c.addr, Proto: c.proto}.String(),
			VIP: now.VIP, Now: actionText(now.Action), Next: actionText(next.Action), By: "default", Known: known, Maybe: c.maybe,
		}
		switch {
		case next.Rule >= 0:
			r.By = t.next.cfg.Policy.Rules[next.Rule].Origin.String()
		case next.Action == bpf.PolicyDefault:
			r.By = "no rule names it"
		}
		if all || r.changes() {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b tried) int {
		return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.Address, b.Address), strings.Compare(a.Then, b.Then))
	})
	return out
}

// policied is a configuration, and the tree of its groups.
type policied struct {
	cfg  *config.Config
	tree *anchor.Tree
}

func grouped(cfg *config.Config) (*policied, error) {
	tree, err := cfg.Tree()
	if err != nil {
		return nil, err
	}
	return &policied{cfg, tree}, nil
}

// called is one kind of call that is known to have been made.
type called struct {
	group string // now
	then  string // its group under the other configuration
	maybe bool   // nobody knows whether it was one of those that are in that group then
	addr  netip.AddrPort
	proto config.Proto
}

// groupOf is the group of a cgroup, host where none covers it.
func (p *policied) groupOf(path string) string {
	group, _ := p.tree.Of(path)
	return cmp.Or(group, lb.HostGroup)
}

func protoOf(name string) config.Proto {
	if name == config.UDP.String() {
		return config.UDP
	}
	return config.TCP
}
