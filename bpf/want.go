package bpf

import "github.com/cilium/ebpf"

// Hook is a place at the root of the cgroups at which a program is attached, by
// the name that people know it by.
type Hook struct {
	Name string
	Type ebpf.AttachType
}

// Hooks are those at which something is always attached.
var Hooks = []Hook{
	{"connect4", ebpf.AttachCGroupInet4Connect}, {"connect6", ebpf.AttachCGroupInet6Connect},
	{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg}, {"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg},
	{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg}, {"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg},
	{"getpeername4", ebpf.AttachCgroupInet4GetPeername}, {"getpeername6", ebpf.AttachCgroupInet6GetPeername},
	{"sock_release", ebpf.AttachCgroupInetSockRelease},
}

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
