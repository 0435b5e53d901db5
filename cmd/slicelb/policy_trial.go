package main

import (
	"cmp"
	"context"
	"fmt"
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
	seen      map[called]string // where it is known from
}

func (t *trial) add(c called, known string) {
	if c.then == "" {
		c.then = lb.HostGroup
		for i := range t.next.cfg.Groups {
			if t.next.cfg.Groups[i].Name == c.group {
				c.then = c.group
			}
		}
	}
	if _, ok := t.seen[c]; !ok {
		t.seen[c] = known
	}
}

// gather asks the daemon what it knows, and this host for its connections.
func (t *trial) gather(ctx context.Context, g *globals) error {
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
			t.add(called{group: c.Group, addr: f.Addr, proto: f.Proto}, "counters")
		}
	}
	for _, s := range p.Seen {
		if addr, err := netip.ParseAddrPort(s.Address); err == nil {
			t.add(called{group: s.Group, addr: addr, proto: protoOf(s.Proto)}, "audit")
		}
	}
	err = g.client().Observe(ctx, api.Observation{}, func(o *api.Observed) error {
		if d := o.Decision; d != nil {
			if addr, err := netip.ParseAddrPort(d.Address); err == nil {
				group, _, _ := strings.Cut(d.Group, "/")
				t.add(called{group: group, addr: addr, proto: protoOf(d.Protocol)}, "decision")
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := t.connections(g, used); err != nil {
		fmt.Fprintf(g.stderr, "slicelb: connections are left out: %v\n", err)
	}
	return nil
}

// connections adds what is connected now. Of one to a VIP only the backend is
// known: where the group has called the VIP, it has been added.
func (t *trial) connections(g *globals, used map[[2]string]bool) error {
	backends := map[netip.AddrPort][]string{}
	for i := range t.now.cfg.VIPs {
		v := &t.now.cfg.VIPs[i]
		list := v.Backends
		for _, view := range v.For {
			list = append(list[:len(list):len(list)], view.Backends...)
		}
		for _, b := range list {
			backends[b.Addr] = append(backends[b.Addr], v.Name)
		}
	}
	root, err := g.findRoot()
	if err != nil {
		return err
	}
	list, err := currentConnections(root.Path)
	if err != nil {
		return fmt.Errorf("list connections: %w", err)
	}
next:
	for _, c := range list {
		group := groupOfPath(t.now.tree, c.cgroup)
		for _, vip := range backends[c.peer] {
			if used[[2]string{group, vip}] {
				continue next
			}
		}
		t.add(called{group: group, then: groupOfPath(t.next.tree, c.cgroup), addr: c.peer, proto: c.proto}, "connection")
	}
	return nil
}

// judge asks both policies about every call, in a stable order; without all,
// only what would change is in the answer.
func (t *trial) judge(all bool) []tried {
	out := []tried{}
	for c, known := range t.seen {
		now := lb.Judge(t.now.cfg, c.group, c.addr, c.proto)
		next := lb.Judge(t.next.cfg, c.then, c.addr, c.proto)
		r := tried{
			Group: c.group, Then: c.then, Address: config.Frontend{Addr: c.addr, Proto: c.proto}.String(),
			VIP: now.VIP, Now: actionText(now.Action), Next: actionText(next.Action), By: "default", Known: known,
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
	addr  netip.AddrPort
	proto config.Proto
}

func protoOf(name string) config.Proto {
	if name == config.UDP.String() {
		return config.UDP
	}
	return config.TCP
}

// groupOfPath is the group of a cgroup by the patterns of a configuration, host
// where none covers it.
func groupOfPath(tree *anchor.Tree, path string) string {
	match := tree.Root()
	group := match.Group
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		var ok bool
		if match, ok = tree.Child(match.Node, name); !ok {
			break
		}
		if match.Group != "" {
			group = match.Group
		}
	}
	return cmp.Or(group, lb.HostGroup)
}
