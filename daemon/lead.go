package daemon

import (
	"fmt"
	"time"

	"github.com/slicelb/slicelb/api"
	"github.com/slicelb/slicelb/bpf"
	"github.com/slicelb/slicelb/internal/prose"
)

// lead says where a cell that chooses by Maglev leads a caller: by the programs' own
// arithmetic, in the table that they read. backend is "" where that cannot be said.
func (c caller) lead(d *bpf.Dump, cell bpf.Cell) (backend string, step api.Step) {
	who := bpf.Caller{Group: d.Groups[c.group].Name, Netns: d.HostNetns}
	look, key, leads := "group "+prose.Foreign(who.Group), "its name", "leads"
	if c.by >= 0 && c.rules[c.line[c.by].id].Split {
		at := c.line[c.by]
		who.Split = at.id
		look, key = "cgroup "+prose.Foreign(at.path), "its id"
	}
	step = api.Step{Look: look}
	if cell.Affinity > 0 {
		if c.elsewhere {
			step.Found = key + " and a network namespace that is not the daemon's lead to a backend that is not known here"
			return "", step
		}
		key, leads = key+" and the daemon's network namespace", "lead"
	}
	b, ok := d.Backends[d.MaglevBackend(cell, who)]
	if !ok {
		step.Found = fmt.Sprintf("%s %s to no backend", key, leads)
		return "", step
	}
	step.Found = fmt.Sprintf("%s %s to %s", key, leads, b.Addr)
	return b.Addr.String(), step
}

// choiceText is how a cell finds a backend; to is the one that Maglev is known to find.
func choiceText(c bpf.Cell, to string, key bpf.FrontendKey) string {
	how := "by weight"
	switch c.Algorithm {
	case bpf.LeastConnections:
		how = "by open connections and weight"
	case bpf.Maglev:
		how = "the one that its group leads to"
		if c.Affinity > 0 {
			how = "the one that its group and network namespace lead to"
		}
		if to == "" {
			how += ", which is not known here"
		} else {
			how += ": " + to
		}
	}
	kept := time.Duration(c.Affinity) * time.Second
	switch {
	case kept > 0 && to != "":
		how += fmt.Sprintf(", unless it keeps another that it has called in the last %v", kept)
	case kept > 0:
		how += fmt.Sprintf("; kept until %v pass without a call", kept)
	}
	if to != "" && key.Proto == bpf.UDP {
		how += "; a socket that is not connected keeps the one that it has"
	}
	return how
}
