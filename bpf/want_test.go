package bpf

import (
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

// People are told of every hook at which something is always attached.
func TestHooks(t *testing.T) {
	want := []Hook{
		{"connect4", ebpf.AttachCGroupInet4Connect}, {"connect6", ebpf.AttachCGroupInet6Connect},
		{"getpeername4", ebpf.AttachCgroupInet4GetPeername}, {"getpeername6", ebpf.AttachCgroupInet6GetPeername},
		{"recvmsg4", ebpf.AttachCGroupUDP4Recvmsg}, {"recvmsg6", ebpf.AttachCGroupUDP6Recvmsg},
		{"sendmsg4", ebpf.AttachCGroupUDP4Sendmsg}, {"sendmsg6", ebpf.AttachCGroupUDP6Sendmsg},
		{"sock_release", ebpf.AttachCgroupInetSockRelease},
	}
	if !slices.Equal(Hooks, want) {
		t.Errorf("%v, want %v", Hooks, want)
	}
}
