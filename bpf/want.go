package bpf

import (
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// Hook is a place at the root of the cgroups at which a program is attached, by
// the name that people know it by.
type Hook struct {
	Name string
	Type ebpf.AttachType
}

// Hooks are those at which something is always attached, by name.
var Hooks = func() (always []Hook) {
	for _, h := range hooks {
		if !h.optional() && !h.tracepoint() {
			always = append(always, Hook{h.name(), h.attach})
		}
	}
	slices.SortFunc(always, func(a, b Hook) int { return strings.Compare(a.Name, b.Name) })
	return always
}()

// SockOps is the optional hook that hears how TCP connects go on.
const SockOps = "sockops"

// SockCreate is the optional hook that refuses sockets to groups with Strict.
const SockCreate = "sock_create"

// Want says which of the optional hooks the next Attach is to attach; it detaches
// the others. Until it is called, those that were adopted stay.
func (d *Datapath) Want(hooks ...string) {
	d.attach.Lock()
	defer d.attach.Unlock()
	d.wanted = make(map[string]bool, len(hooks))
	for _, name := range hooks {
		d.wanted[name] = true
	}
}

// wants says whether Attach is to see to a hook.
func (d *Datapath) wants(h hook) bool {
	if !h.optional() {
		return true
	}
	return d.wanted[h.name()] || d.wanted == nil && d.links[h.program] != nil
}

// dropUnwanted detaches the optional hooks that nobody wants any more.
func (d *Datapath) dropUnwanted() {
	for _, h := range hooks {
		l := d.links[h.program]
		if l == nil || d.wants(h) {
			continue
		}
		if err := l.Close(); err != nil {
			d.opts.log().Warn("detach", "hook", h.name(), "err", err)
		}
		delete(d.links, h.program)
	}
}
